//! The query templates of MetricTemplates: the part of Go's text/template that queries use.

use std::collections::BTreeMap;

/// What a template's functions give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateModel<'a> {
    /// `{{ name }}`: the Canary.
    pub name: &'a str,
    /// `{{ namespace }}`: its namespace.
    pub namespace: &'a str,
    /// `{{ target }}`: the workload.
    pub target: &'a str,
    /// `{{ service }}`: the apex Service.
    pub service: &'a str,
    /// `{{ ingress }}`: the ingress, else the workload.
    pub ingress: &'a str,
    /// `{{ route }}`: the route, else the workload (newer dialect only).
    pub route: Option<&'a str>,
    /// `{{ interval }}`: the metric's window.
    pub interval: &'a str,
    /// `{{ variables.X }}`: the metric's variables (newer dialect only).
    pub variables: Option<&'a BTreeMap<String, String>>,
}

/// Renders a template.
///
/// # Errors
/// Go's message for what is wrong: an unknown function, an unclosed action, a missing variable.
pub fn render(template: &str, model: &TemplateModel<'_>) -> Result<String, String> {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let line = 1 + template[..template.len() - rest.len() + start].matches('\n').count();
        let (before, action) = (&rest[..start], &rest[start + 2..]);
        let Some(end) = action.find("}}") else {
            return Err(format!("template: tmpl:{line}: unclosed action"));
        };
        let (mut action, mut after) = (&action[..end], &action[end + 2..]);
        // `{{- ` and ` -}}` trim the text around the action.
        let mut before = before;
        if let Some(trimmed) = action.strip_prefix("- ") {
            action = trimmed;
            before = before.trim_end();
        }
        if let Some(trimmed) = action.strip_suffix(" -") {
            action = trimmed;
            after = after.trim_start();
        }
        text.push_str(before);
        text.push_str(&evaluate(action.trim(), model, line)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn evaluate<'a>(action: &'a str, model: &'a TemplateModel<'_>, line: usize) -> Result<String, String> {
    if action.starts_with("/*") && action.ends_with("*/") {
        return Ok(String::new());
    }
    let (function, field) = action.split_once('.').map_or((action, None), |(f, field)| (f, Some(field)));
    let undefined = || format!("template: tmpl:{line}: function {function:?} not defined");
    let value = match function {
        "name" => model.name,
        "namespace" => model.namespace,
        "target" => model.target,
        "service" => model.service,
        "ingress" => model.ingress,
        "interval" => model.interval,
        "route" => model.route.ok_or_else(undefined)?,
        "variables" => {
            let variables = model.variables.ok_or_else(undefined)?;
            let Some(key) = field else {
                let pairs: Vec<String> = variables.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                return Ok(format!("map[{}]", pairs.join(" ")));
            };
            return variables.get(key).cloned().ok_or_else(|| {
                format!("template: tmpl:{line}: executing \"tmpl\" at <variables.{key}>: map has no entry for key {key:?}")
            });
        }
        "" => return Err(format!("template: tmpl:{line}: missing value for command")),
        quoted if quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"') => {
            &quoted[1..quoted.len() - 1]
        }
        _ => return Err(undefined()),
    };
    match field {
        None => Ok(value.to_owned()),
        Some(field) => Err(format!(
            "template: tmpl:{line}: executing \"tmpl\" at <{action}>: can't evaluate field {field} in type string"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_render_as_in_go() {
        let variables = BTreeMap::from([("code".to_owned(), "404".to_owned())]);
        let model = TemplateModel {
            namespace: "test",
            target: "podinfo",
            interval: "1m",
            variables: Some(&variables),
            ..Default::default()
        };
        let check = |template: &str, expected: Result<&str, &str>| {
            assert_eq!(render(template, &model), expected.map(str::to_owned).map_err(str::to_owned));
        };
        check(
            "rate(x{ns=\"{{ namespace }}\",w=~\"{{target}}\",c=\"{{ variables.code }}\"}[{{ interval }}])",
            Ok("rate(x{ns=\"test\",w=~\"podinfo\",c=\"404\"}[1m])"),
        );
        check("a {{- \"b\" -}} c", Ok("abc"));
        check("\n{{ route }}", Err("template: tmpl:2: function \"route\" not defined"));
        check("{{ target", Err("template: tmpl:1: unclosed action"));
        check(
            "{{ variables.x }}",
            Err("template: tmpl:1: executing \"tmpl\" at <variables.x>: map has no entry for key \"x\""),
        );
    }
}
