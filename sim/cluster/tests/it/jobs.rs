//! Jobs: their pods run to an end, and are counted.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{ResourceExt as _, api::PropagationPolicy};
use serde_json::{Value, json};

use crate::pods::{World, run};

/// A Job `work` of containers that end after five seconds.
fn job(fields: Value, variables: Value, restart: &str) -> Value {
    let mut spec = json!({"template": {"spec": {"restartPolicy": restart,
        "containers": [{"name": "main", "image": "work:1", "env": variables}]}}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({"metadata": {"name": "work"}, "spec": spec})
}

fn failing(indexes: &str) -> Value {
    json!([{"name": "FAILS", "value": indexes}])
}

fn jobs(world: &World) -> Api<Job> {
    Api::namespaced(world.client.clone(), "default")
}

async fn status(world: &World) -> Value {
    serde_json::to_value(jobs(world).get("work").await.unwrap().status).unwrap()
}

/// The types and reasons of the conditions that hold.
async fn conditions(world: &World) -> Vec<String> {
    let status = status(world).await;
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let holding = conditions.iter().filter(|condition| condition["status"] == "True");
    holding
        .map(|condition| {
            format!("{} {}", condition["type"].as_str().unwrap(), condition["reason"].as_str().unwrap())
        })
        .collect()
}

async fn pods(world: &World) -> Vec<Pod> {
    world.pods().list(&ListParams::default().labels("job-name=work")).await.unwrap().items
}

fn count(pods: &[Pod], phase: &str) -> usize {
    pods.iter().filter(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some(phase)).count()
}

#[test]
fn each_index_is_done_once_and_its_pod_knows_it() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let spec = json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed"});
        world.create::<Job>(job(spec, json!([]), "Never")).await;
        // The image takes four seconds, the work five.
        clock.sleep(Duration::from_secs(7)).await;
        let so_far = status(&world).await;
        assert_eq!((&so_far["active"], &so_far["ready"]), (&json!(2), &json!(2)), "{so_far}");
        assert_eq!(so_far["startTime"], "2020-03-17T11:00:00Z");
        clock.sleep(Duration::from_secs(4)).await;
        assert_eq!(status(&world).await["completedIndexes"], "0,1");
        clock.sleep(Duration::from_secs(12)).await;
        let done = status(&world).await;
        assert_eq!((&done["succeeded"], &done["completedIndexes"]), (&json!(5), &json!("0-4")), "{done}");
        assert!(done["active"].is_null() && !done["completionTime"].is_null(), "{done}");
        assert_eq!(
            conditions(&world).await,
            ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]
        );

        let pods = pods(&world).await;
        let third = pods.iter().find(|pod| pod.name_any().starts_with("work-3-")).unwrap();
        let uid = jobs(&world).get("work").await.unwrap().uid().unwrap();
        assert_eq!(third.annotations()["batch.kubernetes.io/job-completion-index"], "3");
        assert_eq!(third.labels()["batch.kubernetes.io/controller-uid"], uid);
        assert_eq!(third.labels()["batch.kubernetes.io/job-name"], "work");
        let state = &third.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].state;
        assert_eq!(state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
        let mut lines: Vec<String> =
            world.logs.lines(|source| source.workload == "work").into_iter().map(|(_, line)| line).collect();
        lines.sort();
        let expected: Vec<String> =
            (0..5).map(|index| format!("{index} on work-{index}, 0 done before")).collect();
        assert_eq!(lines, expected);
        let events = world.events().await;
        assert_eq!(
            events.iter().filter(|event| event.starts_with("SuccessfulCreate: Created pod: work-")).count(),
            5
        );
        assert!(events.contains(&"Completed: Job completed".to_owned()), "{events:?}");
    });
}

#[test]
fn a_failing_index_is_tried_again_later_each_time_until_the_limit() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let spec =
            json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 2});
        world.create::<Job>(job(spec, failing("1"), "Never")).await;
        clock.sleep(Duration::from_secs(12)).await;
        let first = status(&world).await;
        assert_eq!((&first["failed"], &first["completedIndexes"]), (&json!(1), &json!("0,2")), "{first}");
        // It failed after 9 s: again at 19 s, and again at 24 s + 20 s.
        clock.sleep(Duration::from_secs(8)).await;
        assert_eq!(status(&world).await["active"], 1);
        clock.sleep(Duration::from_secs(20)).await;
        let second = status(&world).await;
        assert_eq!((&second["failed"], &second["active"]), (&json!(2), &Value::Null), "{second}");
        clock.sleep(Duration::from_secs(12)).await;
        let last = status(&world).await;
        assert_eq!((&last["failed"], &last["succeeded"]), (&json!(3), &json!(2)), "{last}");
        assert_eq!(
            conditions(&world).await,
            ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"]
        );
        assert!(last["completionTime"].is_null(), "{last}");
        assert_eq!(count(&pods(&world).await, "Failed"), 3, "failed pods stay, for their logs");
        let events = world.events().await;
        let told = "BackoffLimitExceeded: Job has reached the specified backoff limit".to_owned();
        assert!(events.contains(&told), "{events:?}");
    });
}

#[test]
fn removed_pods_stay_counted_and_jobs_go_with_their_pods_when_their_time_is_over() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let spec = json!({"completions": 4, "parallelism": 2, "ttlSecondsAfterFinished": 60});
        world.create::<Job>(job(spec, json!([]), "Never")).await;
        clock.sleep(Duration::from_secs(11)).await;
        assert_eq!(status(&world).await["succeeded"], 2);
        for pod in pods(&world)
            .await
            .iter()
            .filter(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded"))
        {
            world.pods().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        }
        clock.sleep(Duration::from_secs(10)).await;
        let done = status(&world).await;
        assert_eq!((&done["succeeded"], &done["failed"]), (&json!(4), &Value::Null), "{done}");
        assert_eq!(pods(&world).await.len(), 2);
        clock.sleep(Duration::from_secs(70)).await;
        assert!(jobs(&world).get_opt("work").await.unwrap().is_none());
        assert_eq!(pods(&world).await.len(), 0);
    });
}

#[test]
fn containers_are_restarted_in_their_pod_on_failure_and_deadlines_end_it() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let spec = json!({"activeDeadlineSeconds": 40});
        world.create::<Job>(job(spec, failing("all"), "OnFailure")).await;
        clock.sleep(Duration::from_secs(30)).await;
        let only = &pods(&world).await[0];
        let container = &only.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.restart_count, 2, "{container:?}");
        assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 7);
        assert_eq!(status(&world).await["active"], 1);
        clock.sleep(Duration::from_secs(45)).await;
        assert_eq!(conditions(&world).await, ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]);
        let last = status(&world).await;
        assert_eq!(
            (&last["failed"], &last["active"], &last["terminating"]),
            (&json!(1), &Value::Null, &json!(0))
        );
    });
}

#[test]
fn a_job_has_failed_when_its_last_pod_has_ended() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let mut object = job(json!({"activeDeadlineSeconds": 10}), json!([]), "Never");
        object["spec"]["template"]["spec"]["containers"][0]["image"] = "web:1".into();
        world.create::<Job>(object).await;
        // Told to end, this program takes three seconds.
        clock.sleep(Duration::from_secs(12)).await;
        assert_eq!(conditions(&world).await, ["FailureTarget DeadlineExceeded"]);
        assert_eq!(status(&world).await["terminating"], 1);
        clock.sleep(Duration::from_secs(3)).await;
        assert_eq!(conditions(&world).await.last().unwrap(), "Failed DeadlineExceeded");
    });
}

#[test]
fn a_suspended_job_gives_its_pods_up_and_goes_on_later() {
    run(|clock| async move {
        let world = World::start(clock).await;
        world
            .create::<Job>(job(
                json!({"completions": 2, "parallelism": 2, "suspend": true}),
                json!([]),
                "Never",
            ))
            .await;
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(
            (conditions(&world).await, pods(&world).await.len()),
            (vec!["Suspended JobSuspended".to_owned()], 0)
        );
        assert!(status(&world).await["startTime"].is_null());
        let suspend = |suspend: bool| Patch::Merge(json!({"spec": {"suspend": suspend}}));
        let params = PatchParams::default();
        jobs(&world).patch("work", &params, &suspend(false)).await.unwrap();
        clock.sleep(Duration::from_secs(6)).await;
        assert_eq!(status(&world).await["startTime"], "2020-03-17T11:00:05Z");
        jobs(&world).patch("work", &params, &suspend(true)).await.unwrap();
        clock.sleep(Duration::from_secs(40)).await;
        let suspended = status(&world).await;
        assert_eq!((&suspended["active"], &suspended["failed"]), (&Value::Null, &Value::Null), "{suspended}");
        assert_eq!(pods(&world).await.len(), 0);
        jobs(&world).patch("work", &params, &suspend(false)).await.unwrap();
        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(status(&world).await["succeeded"], 2);
    });
}

#[test]
fn a_command_that_every_image_has_runs_in_place_of_the_program() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let nap = json!([{"name": "main", "image": "web:1", "command": ["sleep"], "args": ["3"]},
            {"name": "other", "image": "web:1", "command": ["sh", "-c", "true"]}]);
        let mut object = job(json!({}), json!([]), "Never");
        object["spec"]["template"]["spec"]["containers"] = nap;
        world.create::<Job>(object).await;
        clock.sleep(Duration::from_secs(6)).await;
        assert_eq!(
            (count(&pods(&world).await, "Running"), status(&world).await["active"].clone()),
            (1, json!(1))
        );
        clock.sleep(Duration::from_secs(2)).await;
        assert_eq!(conditions(&world).await.last().unwrap(), "Complete CompletionsReached");
    });
}

#[test]
fn deleting_a_job_deletes_its_pods() {
    run(|clock| async move {
        let world = World::start(clock).await;
        // Without completions: when one has ended well, no more are begun.
        world.create::<Job>(job(json!({"parallelism": 3}), json!([]), "Never")).await;
        clock.sleep(Duration::from_secs(11)).await;
        assert_eq!(status(&world).await["succeeded"], 3);
        assert_eq!(conditions(&world).await.last().unwrap(), "Complete CompletionsReached");
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        jobs(&world).delete("work", &params).await.unwrap();
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(pods(&world).await.len(), 0);
    });
}

#[test]
fn impossible_jobs_are_refused() {
    run(|clock| async move {
        let world = World::start(clock).await;
        let refused = async |job: Value| {
            let job = serde_json::from_value(job).unwrap();
            jobs(&world).create(&PostParams::default(), &job).await.unwrap_err().to_string()
        };
        let said = refused(job(json!({}), json!([]), "Always")).await;
        assert!(said.contains("spec.template.spec.restartPolicy: Required value: valid values"), "{said}");
        let said =
            refused(job(json!({"completionMode": "Indexed", "parallelism": 2}), json!([]), "Never")).await;
        assert!(said.contains("spec.completions: Required value: when completion mode is Indexed"), "{said}");
        let said =
            refused(job(json!({"completionMode": "Sorted", "backoffLimit": -1}), json!([]), "Never")).await;
        assert!(
            said.contains("completionMode: Unsupported value")
                && said.contains("backoffLimit: Invalid value"),
            "{said}"
        );
        world.create::<Job>(job(json!({}), json!([]), "Never")).await;
        let grown = Patch::Merge(json!({"spec": {"completions": 4}}));
        let said = jobs(&world).patch("work", &PatchParams::default(), &grown).await.unwrap_err().to_string();
        assert!(said.contains("spec.completions: Invalid value: 4: field is immutable"), "{said}");
        let spec = serde_json::to_value(jobs(&world).get("work").await.unwrap().spec).unwrap();
        let uid = jobs(&world).get("work").await.unwrap().uid().unwrap();
        assert_eq!(spec["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
        assert_eq!(
            (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
            (&json!(1), &json!(1), &json!(6))
        );
    });
}
