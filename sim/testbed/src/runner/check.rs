//! Whether an object is as a check wants it. Pure.

use apiserver::jsonpath::{JsonPath, text_of};
use regex::Regex;
use tree::Value;

use crate::scenario::{CanaryCheck, ObjectCheck, QueryCheck};

/// Whether `object` (`None`: there is none) is as the check wants it; if not, what is wrong.
pub(super) fn object(check: &ObjectCheck, object: Option<&Value>) -> Result<(), String> {
    let what = describe(check);
    if check.absent {
        return match object {
            None => Ok(()),
            Some(_) => Err(format!("{what} exists")),
        };
    }
    let object = object.ok_or_else(|| format!("{what} does not exist"))?;
    if let Some(part) = &check.contains {
        contained(&part.into(), object, "").map_err(|difference| format!("{what}: {difference}"))?;
    }
    let Some(path) = &check.path else { return Ok(()) };
    // The path and the pattern were parsed when the scenario was read.
    let parsed = JsonPath::parse(path)?;
    let found = parsed.find(object);
    let shown = match found.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        several => several.iter().map(|value| (*value).clone()).collect::<Value>().to_string(),
    };
    let path = &path.value;
    if let Some(exists) = check.exists
        && exists == found.is_empty()
    {
        let not = if exists { "nothing" } else { &shown };
        return Err(format!("{what}: {path} leads to {not}"));
    }
    if let Some(wanted) = &check.equals {
        let same = match found.as_slice() {
            [one] => same(one, &wanted.into()),
            several => match &wanted.into() {
                Value::String(text) => *text == parsed.render(object) && !several.is_empty(),
                Value::Array(items) => {
                    items.len() == several.len() && items.iter().zip(several).all(|(a, b)| same(b, a))
                }
                _ => false,
            },
        };
        if !same {
            return Err(format!("{what}: {path} is {shown}, not {wanted}"));
        }
    }
    if let Some(pattern) = &check.matches {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        if found.is_empty() || !regex.is_match(&parsed.render(object)) {
            return Err(format!("{what}: {path} is {shown}, which does not match {:?}", pattern.value));
        }
    }
    if check.min.is_some() || check.max.is_some() {
        let number = match found.as_slice() {
            [one] => one.as_f64().or_else(|| text_of(one).parse().ok()),
            _ => None,
        };
        let number = number.ok_or_else(|| format!("{what}: {path} is {shown}, which is no number"))?;
        within(number, check.min, check.max)
            .map_err(|limit| format!("{what}: {path} is {shown}, {limit}"))?;
    }
    Ok(())
}

/// `Deployment test/podinfo in mesh02`.
pub(super) fn describe(check: &ObjectCheck) -> String {
    let namespace = check.namespace.as_deref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{} {namespace}{} in {}", check.kind, check.name, check.cluster)
}

/// What a check wants, in words.
pub(super) fn wish(check: &ObjectCheck) -> String {
    let mut wish = describe(check);
    if check.absent {
        wish.push_str(" absent");
    }
    if let Some(path) = &check.path {
        wish.push_str(&format!(": {}", path.value));
        if let Some(value) = &check.equals {
            wish.push_str(&format!(" = {}", text_of(&value.into())));
        }
        if let Some(pattern) = &check.matches {
            wish.push_str(&format!(" matches {}", pattern.value));
        }
        if let Some(min) = check.min {
            wish.push_str(&format!(" >= {min}"));
        }
        if let Some(max) = check.max {
            wish.push_str(&format!(" <= {max}"));
        }
        match check.exists {
            Some(true) => wish.push_str(" exists"),
            Some(false) => wish.push_str(" does not exist"),
            None => {}
        }
    }
    wish
}

/// Numbers by value, so that 50 and 50.0 are the same; a text may stand for a number.
fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Number(_) | Value::Bool(_), Value::String(text)) => text_of(found) == *text,
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

/// Whether `part` is contained in `whole`: maps by key, lists item by item. The first difference if not.
fn contained(part: &Value, whole: &Value, path: &str) -> Result<(), String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().try_for_each(|(key, part)| {
            let path = format!("{path}.{key}");
            match whole.get(key) {
                Some(whole) => contained(part, whole, &path),
                None => Err(format!("{path} is missing, expected {part}")),
            }
        }),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => part
            .iter()
            .zip(whole)
            .enumerate()
            .try_for_each(|(index, (part, whole))| contained(part, whole, &format!("{path}[{index}]"))),
        (part, whole) if same(whole, part) => Ok(()),
        (part, whole) => Err(format!("{path} is {whole}, expected {part}")),
    }
}

/// Whether a number keeps its limits; if not, which it breaks.
pub(super) fn within(number: f64, min: Option<f64>, max: Option<f64>) -> Result<(), String> {
    if let Some(min) = min
        && (number < min || number.is_nan())
    {
        return Err(format!("which is below {min}"));
    }
    if let Some(max) = max
        && (number > max || number.is_nan())
    {
        return Err(format!("which is above {max}"));
    }
    Ok(())
}

/// Whether a query's result (`None`: no series) is as the check wants it.
pub(super) fn query(check: &QueryCheck, found: Option<f64>) -> Result<(), String> {
    let promql = &check.promql;
    match (check.empty, found) {
        (Some(true), Some(value)) => return Err(format!("{promql} gives {value}, not nothing")),
        (Some(true), None) => return Ok(()),
        (_, None) => return Err(format!("{promql} gives no value")),
        _ => {}
    }
    let value = found.unwrap_or(f64::NAN);
    if let Some(wanted) = check.value {
        let near = (value - wanted).abs() <= 1e-9 * wanted.abs().max(1.0);
        let same = near || (value.is_nan() && wanted.is_nan());
        if !same {
            return Err(format!("{promql} gives {value}, not {wanted}"));
        }
    }
    within(value, check.min, check.max).map_err(|limit| format!("{promql} gives {value}, {limit}"))
}

/// Whether a Canary's status is as the check wants it.
pub(super) fn canary(check: &CanaryCheck, object: Option<&Value>) -> Result<(), String> {
    let what = format!("Canary {}/{} in {}", check.namespace, check.name, check.cluster);
    let object = object.ok_or_else(|| format!("{what} does not exist"))?;
    let status = &object["status"];
    let phase = status["phase"].as_str().unwrap_or_default();
    let weight = status["canaryWeight"].as_i64().unwrap_or_default();
    let failed = status["failedChecks"].as_i64().unwrap_or_default();
    if check.phase.as_deref().is_some_and(|wanted| wanted != phase) {
        let wanted = check.phase.as_deref().unwrap_or_default();
        return Err(format!("{what} is {phase:?} (weight {weight}), not {wanted:?}"));
    }
    if check.weight.is_some_and(|wanted| wanted != weight) {
        return Err(format!("{what} has the weight {weight}, not {}", check.weight.unwrap_or_default()));
    }
    if check.min_weight.is_some_and(|least| weight < least) {
        return Err(format!(
            "{what} has the weight {weight}, less than {}",
            check.min_weight.unwrap_or_default()
        ));
    }
    if check.min_failed_checks.is_some_and(|least| failed < least) {
        let least = check.min_failed_checks.unwrap_or_default();
        return Err(format!("{what} has {failed} failed checks, fewer than {least}"));
    }
    Ok(())
}

/// What a canary check wants, in words.
pub(super) fn canary_wish(check: &CanaryCheck) -> String {
    let mut wish = format!("Canary {}/{} in {}", check.namespace, check.name, check.cluster);
    if let Some(phase) = &check.phase {
        wish.push_str(&format!(" is {phase}"));
    }
    if let Some(weight) = check.weight {
        wish.push_str(&format!(" with weight {weight}"));
    }
    if let Some(weight) = check.min_weight {
        wish.push_str(&format!(" with weight {weight} or more"));
    }
    if let Some(failed) = check.min_failed_checks {
        wish.push_str(&format!(" with {failed} failed checks or more"));
    }
    wish
}

/// Whether a Deployment's newest template is rolled out, as `kubectl rollout status` asks.
pub(super) fn rollout(what: &str, object: Option<&Value>) -> Result<(), String> {
    let object = object.ok_or_else(|| format!("{what} does not exist"))?;
    let number = |path: &[&str]| {
        path.iter().try_fold(object, |value, key| value.get(*key)).and_then(Value::as_i64).unwrap_or_default()
    };
    if number(&["status", "observedGeneration"]) < number(&["metadata", "generation"]) {
        return Err(format!("{what}: its newest template has not been observed"));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (updated, all) = (number(&["status", "updatedReplicas"]), number(&["status", "replicas"]));
    let available = number(&["status", "availableReplicas"]);
    if updated < wanted {
        return Err(format!("{what}: {updated} of {wanted} replicas are updated"));
    }
    if all > updated {
        return Err(format!("{what}: {} old replicas are pending termination", all - updated));
    }
    if available < updated {
        return Err(format!("{what}: {available} of {updated} updated replicas are available"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tree::json;

    fn check(yaml: &str, found: Option<Value>) -> Result<(), String> {
        let check: ObjectCheck = yaml::parse(&format!("{{cluster: c, kind: Pod, name: p, {yaml}}}")).unwrap();
        object(&check, found.as_ref())
    }

    #[test]
    fn objects_are_compared_by_path_and_by_part() {
        let pod = || Some(json!({"spec": {"n": 3, "list": ["a", "b"]}, "status": {"phase": "Running"}}));
        assert_eq!(check("path: .status.phase, equals: Running", pod()), Ok(()));
        assert_eq!(check("path: .spec.n, equals: '3'", pod()), Ok(()));
        assert_eq!(check("path: .spec.n, min: 3, max: 3", pod()), Ok(()));
        assert_eq!(check("path: '.spec.list[*]', equals: [a, b]", pod()), Ok(()));
        assert_eq!(check("path: .spec.none, exists: false", pod()), Ok(()));
        assert_eq!(check("contains: {spec: {list: [a, b]}}", pod()), Ok(()));
        assert_eq!(check("absent: true", None), Ok(()));
        let wrong = |yaml: &str| check(yaml, pod()).unwrap_err();
        assert_eq!(wrong("path: .spec.n, equals: 4"), "Pod p in c: .spec.n is 3, not 4");
        assert_eq!(wrong("path: .spec.n, min: 4"), "Pod p in c: .spec.n is 3, which is below 4");
        assert_eq!(
            wrong("contains: {spec: {list: [a, c]}}"),
            "Pod p in c: .spec.list[1] is \"b\", expected \"c\""
        );
        assert_eq!(wrong("absent: true"), "Pod p in c exists");
        assert_eq!(check("", None).unwrap_err(), "Pod p in c does not exist");
    }
}
