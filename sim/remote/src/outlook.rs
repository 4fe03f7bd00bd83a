//! What a Job and its pods say about how the work goes. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Reasons for which a container waits that more patience does not help.
const STUCK: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ImageInspectError",
];

/// How the work goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outlook {
    /// The pods that have ended well, by part.
    pub done: BTreeMap<u64, String>,
    /// How many pods run.
    pub running: usize,
    /// How many pods there are.
    pub pods: usize,
    /// Why the work cannot come to an end, and the pod whose log may say more.
    pub trouble: Option<(String, Option<String>)>,
    /// What people may want to know meanwhile.
    pub remarks: Vec<String>,
}

/// Reads it off the Job and its pods; `hopeless` is the exit code of a program that will not do better another time.
pub(crate) fn read(job: &Value, pods: &[Value], hopeless: i64) -> Outlook {
    let mut outlook = Outlook { pods: pods.len(), ..Outlook::default() };
    let mut failed: Vec<(&str, String, String)> = Vec::new();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let index = index_of(pod);
        match pod["status"]["phase"].as_str().unwrap_or_default() {
            "Succeeded" => {
                if let Some(index) = index {
                    outlook.done.insert(index, name);
                }
                continue;
            }
            "Failed" => {
                let (at, said, code) = end(pod);
                let shard = index.map_or_else(String::new, |index| format!("shard {} ", index + 1));
                let said = format!("{shard}(pod {name}) failed: {said}");
                if code == Some(hopeless) {
                    outlook.trouble = outlook.trouble.take().or(Some((said, Some(name))));
                } else {
                    failed.push((at, said, name));
                }
                continue;
            }
            "Running" => outlook.running += 1,
            _ => {}
        }
        if let Some((reason, message)) = stuck(pod) {
            let said = format!("pod {name} cannot start: {reason}: {message}");
            outlook.trouble = outlook.trouble.take().or(Some((said, None)));
        }
        if let Some(message) = unscheduled(pod) {
            let remark = format!("no node takes a pod: {message}");
            if !outlook.remarks.contains(&remark) {
                outlook.remarks.push(remark);
            }
        }
    }
    failed.sort();
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let mut failure = conditions.filter(|condition| {
        condition["status"] == "True"
            && matches!(condition["type"].as_str(), Some("Failed" | "FailureTarget"))
    });
    if let Some(condition) = failure.next()
        && outlook.trouble.is_none()
    {
        let why = condition["message"].as_str().unwrap_or_default();
        outlook.trouble = Some(match failed.pop() {
            Some((_, said, name)) => (format!("{said} ({why})"), Some(name)),
            None => (why.to_owned(), None),
        });
    } else if !failed.is_empty() {
        outlook.remarks.extend(failed.into_iter().map(|(_, said, _)| format!("{said}; it is tried again")));
    }
    outlook
}

/// A pod's part.
fn index_of(pod: &Value) -> Option<u64> {
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str()?.parse().ok()
}

/// When and how a failed pod ended.
fn end(pod: &Value) -> (&str, String, Option<i64>) {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let ends = statuses.map(|status| &status["state"]["terminated"]).filter(|end| end.is_object());
    let Some(end) = ends.max_by_key(|end| end["exitCode"].as_i64() != Some(0)) else {
        let status = &pod["status"];
        let words = ["reason", "message"].map(|field| status[field].as_str().unwrap_or_default());
        let said = words.join(" ");
        let said = if said.trim().is_empty() { "it says nothing".to_owned() } else { said.trim().to_owned() };
        return ("", said, None);
    };
    let code = end["exitCode"].as_i64();
    let reason = end["reason"].as_str().filter(|reason| *reason != "Error");
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let at = end["finishedAt"].as_str().unwrap_or_default();
    (at, format!("exit code {}{reason}", code.unwrap_or(-1)), code)
}

/// What a container waits for that will not come.
fn stuck(pod: &Value) -> Option<(&str, &str)> {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let mut waiting = statuses.map(|status| &status["state"]["waiting"]);
    let state =
        waiting.find(|state| state["reason"].as_str().is_some_and(|reason| STUCK.contains(&reason)))?;
    Some((state["reason"].as_str()?, state["message"].as_str().unwrap_or("no message")))
}

fn unscheduled(pod: &Value) -> Option<&str> {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut found =
        conditions.filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
    found.next()?["message"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(index: u64, phase: &str, state: Value) -> Value {
        json!({
            "metadata": {"name": format!("w-{index}-x"),
                "annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()}},
            "status": {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]},
        })
    }

    fn ended(code: i64) -> Value {
        json!({"terminated": {"exitCode": code, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}})
    }

    #[test]
    fn pods_are_told_apart() {
        let image =
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"c:1\""}});
        let check = |pods: &[Value], conditions: Value, trouble: Option<&str>, log: Option<&str>| {
            let outlook = read(&json!({"status": {"conditions": conditions}}), pods, 2);
            let (said, of) = outlook.trouble.clone().unzip();
            assert_eq!((said.as_deref(), of.flatten().as_deref()), (trouble, log), "{pods:?}");
            outlook
        };
        let fine =
            check(&[pod(0, "Succeeded", ended(0)), pod(1, "Running", json!({}))], json!([]), None, None);
        assert_eq!((fine.done.len(), fine.running), (1, 1));
        let told = "pod w-1-x cannot start: ImagePullBackOff: Back-off pulling image \"c:1\"";
        check(&[pod(1, "Pending", image)], json!([]), Some(told), None);
        let told = "shard 2 (pod w-1-x) failed: exit code 2";
        check(&[pod(1, "Failed", ended(2))], json!([]), Some(told), Some("w-1-x"));
        // Another code may be the node's fault: the Job decides.
        let again = check(&[pod(1, "Failed", ended(137))], json!([]), None, None);
        assert_eq!(again.remarks, ["shard 2 (pod w-1-x) failed: exit code 137; it is tried again"]);
        let failed =
            json!([{"type": "FailureTarget", "status": "True", "message": "Job has reached the limit"}]);
        let told = "shard 2 (pod w-1-x) failed: exit code 137 (Job has reached the limit)";
        check(&[pod(1, "Failed", ended(137))], failed, Some(told), Some("w-1-x"));
    }
}
