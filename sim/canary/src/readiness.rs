//! Whether a workload is ready, from its rollout's figures.

use std::time::Duration;

use crate::dialect::Dialect;
use crate::message::Names;

/// The kinds of workload that a Canary may target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// A Deployment.
    #[default]
    Deployment,
    /// A DaemonSet: its "replicas" are the nodes that it is scheduled to.
    DaemonSet,
    /// A Service, which is always ready.
    Service,
}

/// How a workload's rollout stands, as its status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// What kind of workload it is.
    pub workload: Workload,
    /// The workload's name.
    pub name: String,
    /// The generation of its spec.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// Wanted replicas, if the spec says.
    pub wanted: Option<i32>,
    /// All replicas.
    pub replicas: i32,
    /// Replicas of the newest template.
    pub updated: i32,
    /// Replicas that have been ready for long enough.
    pub available: i32,
    /// The reason of the condition Progressing, if there is one.
    pub progressing: Option<String>,
    /// How long the condition Available has been false with the reason MinimumReplicasUnavailable; for a DaemonSet,
    /// which has no conditions, how long ago the Canary's status last changed.
    pub unavailable_for: Option<Duration>,
}

/// Which of the two workloads is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The primary.
    Primary,
    /// The target.
    Canary,
}

/// Why a workload is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Whether waiting may help: false once the progress deadline has passed.
    pub retriable: bool,
    /// The reason in the dialect's words.
    pub text: String,
}

/// Judges a rollout.
///
/// # Errors
/// [`NotReady`] while it is not finished. `deadline` is the Canary's progress deadline in seconds, `threshold` the
/// share of updated replicas that must be available in percent (newer dialect only).
pub fn ready(
    rollout: &Rollout,
    role: Role,
    names: &Names<'_>,
    deadline: i32,
    threshold: i32,
    dialect: Dialect,
) -> Result<(), NotReady> {
    let finished = match rollout.workload {
        Workload::Deployment => finished(rollout, deadline, threshold, dialect),
        Workload::DaemonSet => daemons_finished(rollout, names, deadline, threshold, dialect),
        Workload::Service => return Ok(()),
    };
    let Err((retriable, reason)) = finished else { return Ok(()) };
    let text = match (dialect, role) {
        _ if rollout.workload == Workload::DaemonSet => {
            daemons_text(role, names, retriable, &reason, dialect)
        }
        (Dialect::Rc1, Role::Canary) if !retriable => {
            format!("deployment does not have minimum availability for more than {deadline}s")
        }
        (Dialect::Rc1, Role::Primary) => format!("Halt advancement {} {reason}", names.primary()),
        (Dialect::Rc1, Role::Canary) => format!("Halt advancement {} {reason}", names.workload()),
        (Dialect::Latest, Role::Primary) => format!("{} not ready: {reason}", names.primary()),
        (Dialect::Latest, Role::Canary) => {
            format!("canary deployment {} not ready: {reason}", names.workload())
        }
    };
    Err(NotReady { retriable, text })
}

fn finished(
    rollout: &Rollout,
    deadline: i32,
    threshold: i32,
    dialect: Dialect,
) -> Result<(), (bool, String)> {
    if rollout.generation > rollout.observed_generation {
        let than = if dialect == Dialect::Rc1 { "then" } else { "than" };
        return Err((
            true,
            format!(
                "waiting for rollout to finish: observed deployment generation less {than} desired generation"
            ),
        ));
    }
    let deadline = Duration::from_secs(deadline.max(0) as u64);
    let retriable = rollout.progressing.is_none()
        || rollout.unavailable_for.is_none_or(|unavailable| unavailable <= deadline);
    if rollout.progressing.as_deref() == Some("ProgressDeadlineExceeded") {
        return Err((false, format!("deployment {:?} exceeded its progress deadline", rollout.name)));
    }
    let Rollout { replicas, updated, available, .. } = *rollout;
    let reason = if let Some(wanted) = rollout.wanted.filter(|wanted| updated < *wanted) {
        format!("{updated} out of {wanted} new replicas have been updated")
    } else if replicas > updated {
        format!("{} old replicas are pending termination", replicas - updated)
    } else {
        match dialect {
            Dialect::Rc1 if available < updated => {
                format!("{available} of {updated} updated replicas are available")
            }
            Dialect::Latest => {
                // Single precision, as upstream computes it: the product is truncated.
                let needed = (updated as f32 * (threshold as f32 / 100.0)) as i32;
                if available >= needed {
                    return Ok(());
                }
                format!(
                    "{available} of {needed} (readyThreshold {threshold}%) updated replicas are available"
                )
            }
            Dialect::Rc1 => return Ok(()),
        }
    };
    Err((retriable, format!("waiting for rollout to finish: {reason}")))
}

/// Judges a DaemonSet's rollout: by the nodes it reached, and by how long ago the Canary's status last changed.
fn daemons_finished(
    rollout: &Rollout,
    names: &Names<'_>,
    deadline: i32,
    threshold: i32,
    dialect: Dialect,
) -> Result<(), (bool, String)> {
    let Rollout { wanted, updated, available, .. } = *rollout;
    let wanted = wanted.unwrap_or_default();
    let late =
        rollout.unavailable_for.is_some_and(|since| since > Duration::from_secs(deadline.max(0) as u64));
    if dialect == Dialect::Rc1 {
        let unavailable = (wanted - available).max(0);
        if wanted <= updated && unavailable == 0 {
            return Ok(());
        }
        if late {
            return Err((false, format!("daemonset {} exceeded its progress deadline", names.name)));
        }
        return Err((
            true,
            format!(
                "waiting for rollout to finish: desiredNumberScheduled={wanted}, \
                 updatedNumberScheduled={updated}, numberUnavailable={unavailable}"
            ),
        ));
    }
    let waiting = |reason: String| Err((true, format!("waiting for rollout to finish: {reason}")));
    if rollout.generation > rollout.observed_generation {
        return waiting("observed daemonset generation less than desired generation".to_owned());
    }
    let needed = (wanted as f32 * (threshold as f32 / 100.0)) as i32;
    if updated >= wanted && available >= needed {
        return Ok(());
    }
    if late {
        return Err((false, format!("exceeded its progressDeadlineSeconds: {deadline}")));
    }
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new pods have been updated"));
    }
    waiting(format!("{available} of {needed} (readyThreshold {threshold}%) updated pods are available"))
}

fn daemons_text(role: Role, names: &Names<'_>, retriable: bool, reason: &str, dialect: Dialect) -> String {
    match (dialect, role) {
        (Dialect::Rc1, Role::Primary) => format!("halt advancement {} {reason}", names.primary()),
        (Dialect::Rc1, Role::Canary) => format!("halt advancement {} {reason}", names.workload()),
        (Dialect::Latest, Role::Primary) => {
            format!("primary daemonset {} not ready: {reason}", names.primary())
        }
        // Spelt as upstream.
        (Dialect::Latest, Role::Canary) => {
            format!("canary damonset {} not ready with retryable {retriable}: {reason}", names.workload())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_rollouts_are_worded_per_dialect() {
        let names = Names {
            name: "podinfo",
            namespace: "test",
            target: "podinfo",
            kind: "Deployment",
            provider: "istio",
        };
        let check = |change: fn(&mut Rollout), dialect, expected: Result<(), (bool, &str)>| {
            let mut rollout = Rollout {
                workload: Workload::Deployment,
                name: "podinfo-primary".into(),
                generation: 2,
                observed_generation: 2,
                wanted: Some(4),
                replicas: 4,
                updated: 4,
                available: 4,
                progressing: Some("NewReplicaSetAvailable".into()),
                unavailable_for: None,
            };
            change(&mut rollout);
            let verdict = ready(&rollout, Role::Primary, &names, 60, 50, dialect);
            let expected =
                expected.map_err(|(retriable, text)| NotReady { retriable, text: text.to_owned() });
            assert_eq!(verdict, expected);
        };
        check(|_| {}, Dialect::Rc1, Ok(()));
        check(
            |rollout| rollout.available = 3,
            Dialect::Rc1,
            Err((
                true,
                "Halt advancement podinfo-primary.test waiting for rollout to finish: 3 of 4 updated replicas are available",
            )),
        );
        check(|rollout| rollout.available = 2, Dialect::Latest, Ok(()));
        check(
            |rollout| {
                rollout.available = 1;
                rollout.unavailable_for = Some(Duration::from_secs(61));
            },
            Dialect::Latest,
            Err((
                false,
                "podinfo-primary.test not ready: waiting for rollout to finish: 1 of 2 (readyThreshold 50%) updated replicas are available",
            )),
        );
        check(
            |rollout| rollout.observed_generation = 1,
            Dialect::Rc1,
            Err((
                true,
                "Halt advancement podinfo-primary.test waiting for rollout to finish: observed deployment generation less then desired generation",
            )),
        );
        check(
            |rollout| rollout.progressing = Some("ProgressDeadlineExceeded".into()),
            Dialect::Rc1,
            Err((
                false,
                "Halt advancement podinfo-primary.test deployment \"podinfo-primary\" exceeded its progress deadline",
            )),
        );
    }

    #[test]
    fn daemon_sets_have_words_of_their_own() {
        let names = Names {
            name: "podinfo",
            namespace: "test",
            target: "podinfo",
            kind: "DaemonSet",
            provider: "istio",
        };
        let rollout = Rollout {
            workload: Workload::DaemonSet,
            name: "podinfo".into(),
            generation: 2,
            observed_generation: 2,
            wanted: Some(4),
            updated: 4,
            available: 1,
            ..Rollout::default()
        };
        let check = |rollout: &Rollout, role, dialect, expected: Result<(), (bool, &str)>| {
            let verdict = ready(rollout, role, &names, 60, 50, dialect);
            assert_eq!(
                verdict,
                expected.map_err(|(retriable, text)| NotReady { retriable, text: text.to_owned() })
            );
        };
        check(
            &rollout,
            Role::Primary,
            Dialect::Latest,
            Err((
                true,
                "primary daemonset podinfo-primary.test not ready: waiting for rollout to finish: 1 of 2 (readyThreshold 50%) updated pods are available",
            )),
        );
        check(
            &rollout,
            Role::Canary,
            Dialect::Rc1,
            Err((
                true,
                "halt advancement podinfo.test waiting for rollout to finish: desiredNumberScheduled=4, updatedNumberScheduled=4, numberUnavailable=3",
            )),
        );
        let late = Rollout { unavailable_for: Some(Duration::from_secs(61)), updated: 3, ..rollout.clone() };
        check(
            &late,
            Role::Canary,
            Dialect::Latest,
            Err((
                false,
                "canary damonset podinfo.test not ready with retryable false: exceeded its progressDeadlineSeconds: 60",
            )),
        );
        check(&Rollout { available: 2, ..rollout }, Role::Canary, Dialect::Latest, Ok(()));
        check(&Rollout { workload: Workload::Service, ..late }, Role::Canary, Dialect::Rc1, Ok(()));
    }
}
