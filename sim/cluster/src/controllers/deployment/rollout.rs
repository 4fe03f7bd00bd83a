//! The sizes that a Deployment's ReplicaSets take, step by step. Pure integers, no objects; follows
//! `pkg/controller/deployment/{rolling,sync}.go` and `util/deployment_util.go`.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How far a Deployment may stray from its size while it rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The size asked for.
    pub(super) replicas: i32,
    /// Pods above that size.
    pub(super) max_surge: i32,
    /// Pods below that size.
    pub(super) max_unavailable: i32,
}

/// One ReplicaSet's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetSize {
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// `status.availableReplicas`.
    pub(super) available: i32,
}

/// Whether the Deployment replaces pods step by step (the default) or all at once (Recreate).
pub(super) fn is_rolling(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

impl Limits {
    /// The limits of a Deployment; Recreate has none to spare.
    pub(super) fn of(spec: &DeploymentSpec) -> Limits {
        let replicas = spec.replicas.unwrap_or(1);
        if !is_rolling(spec) {
            return Limits { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        Limits::rolling(
            replicas,
            rolling.and_then(|rolling| rolling.max_surge.as_ref()),
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        )
    }

    /// The limits of a rolling update: surge rounds up, unavailable rounds down, absent means 25%, and both
    /// zero would never move, so one pod may then be unavailable.
    pub(super) fn rolling(
        replicas: i32,
        max_surge: Option<&IntOrString>,
        max_unavailable: Option<&IntOrString>,
    ) -> Limits {
        let max_surge = scaled(max_surge, replicas, 99);
        let mut max_unavailable = scaled(max_unavailable, replicas, 0);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Limits { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// Pods that must stay available.
    pub(super) fn min_available(self) -> i32 {
        self.replicas - self.max_unavailable
    }

    /// The size that the new ReplicaSet may grow (or must shrink) to, when all sets together want `total`
    /// pods.
    pub(super) fn new_set(self, rolling: bool, new: i32, total: i32) -> i32 {
        if !rolling || new >= self.replicas {
            return self.replicas;
        }
        let room = (self.replicas + self.max_surge - total).max(0);
        new + room.min(self.replicas - new)
    }

    /// The sizes that the old ReplicaSets (oldest first) shrink to: pods that never became available go
    /// first, then available ones as far as the minimum allows.
    pub(super) fn old_sets(self, new: SetSize, old: &[SetSize]) -> Vec<i32> {
        let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
        let total = new.replicas + sizes.iter().sum::<i32>();
        let unavailable_new = new.replicas - new.available;
        let removable = total - self.min_available() - unavailable_new;
        if removable <= 0 {
            return sizes;
        }
        let mut removed = 0;
        for (size, set) in sizes.iter_mut().zip(old) {
            let unhealthy = (*size - set.available).max(0).min(removable - removed);
            *size -= unhealthy;
            removed += unhealthy;
        }
        let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
        let mut spare = available - self.min_available();
        for size in &mut sizes {
            let gone = (*size).min(spare).max(0);
            *size -= gone;
            spare -= gone;
        }
        sizes
    }
}

/// A count or a percentage of `replicas` (plus `round_up` hundredths of a pod before the division drops
/// them).
fn scaled(value: Option<&IntOrString>, replicas: i32, round_up: i64) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return (*count).max(0),
        // A text that is no percentage counts as zero, as upstream falls back.
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0)
        }
        None => 25,
    };
    i32::try_from((percent * i64::from(replicas) + round_up) / 100).unwrap_or(i32::MAX)
}

/// An active ReplicaSet of a Deployment that is being resized in the middle of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// The Deployment's size plus surge when the set was last scaled (its annotation, else the Deployment's
    /// status).
    pub(super) max_replicas: i32,
}

/// Sizes of the active ReplicaSets (oldest first) after spreading a resize over them in proportion to their
/// sizes; what rounding leaves over goes to the largest.
pub(super) fn proportional(limits: Limits, sets: &[Share]) -> Vec<i32> {
    let total: i32 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if limits.replicas > 0 { limits.replicas + limits.max_surge } else { 0 };
    let to_add = allowed - total;
    let mut order: Vec<usize> = (0..sets.len()).collect();
    // Largest first; growth favours the newer of equals, shrinking the older.
    order.sort_by_key(|&index| {
        let age = i64::try_from(index).unwrap_or(i64::MAX);
        (-i64::from(sets[index].replicas), if to_add > 0 { -age } else { age })
    });
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    if to_add == 0 {
        return sizes;
    }
    let mut added = 0;
    for &index in &order {
        let set = sets[index];
        let left = to_add - added;
        let share = if set.replicas == 0 || left == 0 {
            0
        } else if to_add > 0 {
            fraction(limits, set).min(left)
        } else {
            fraction(limits, set).max(left)
        };
        sizes[index] += share;
        added += share;
    }
    if let Some(&largest) = order.first() {
        sizes[largest] = (sizes[largest] + to_add - added).max(0);
    }
    sizes
}

fn fraction(limits: Limits, set: Share) -> i32 {
    if limits.replicas == 0 {
        return -set.replicas;
    }
    if set.max_replicas == 0 {
        return 0;
    }
    let after =
        f64::from(set.replicas) * f64::from(limits.replicas + limits.max_surge) / f64::from(set.max_replicas);
    let after = after.round() as i32;
    after - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn percent(text: &str) -> IntOrString {
        IntOrString::String(text.into())
    }

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        let check = |replicas, surge: Option<IntOrString>, unavailable: Option<IntOrString>, expect| {
            let limits = Limits::rolling(replicas, surge.as_ref(), unavailable.as_ref());
            assert_eq!(
                (limits.max_surge, limits.max_unavailable),
                expect,
                "{replicas} {surge:?} {unavailable:?}"
            );
        };
        check(4, None, None, (1, 1));
        check(2, None, None, (1, 0));
        check(10, None, None, (3, 2));
        check(4, None, Some(IntOrString::Int(1)), (1, 1));
        check(4, Some(IntOrString::Int(2)), None, (2, 1));
        check(3, Some(IntOrString::Int(0)), Some(percent("10%")), (0, 1));
        check(1, Some(IntOrString::Int(0)), Some(IntOrString::Int(5)), (0, 1));
        check(0, None, None, (0, 0));
        check(10, Some(percent("nonsense")), Some(percent("50%")), (0, 5));
    }

    /// Plays a rollout: every pod of the new set becomes available one step after it was asked for. Returns
    /// the sizes (old, new) after each change.
    fn play(replicas: i32, surge: Option<IntOrString>, unavailable: Option<IntOrString>) -> Vec<(i32, i32)> {
        let limits = Limits::rolling(replicas, surge.as_ref(), unavailable.as_ref());
        let mut old = SetSize { replicas, available: replicas };
        let mut new = SetSize { replicas: 0, available: 0 };
        let mut steps = Vec::new();
        loop {
            let before = (old.replicas, new.replicas, new.available);
            let grown = limits.new_set(true, new.replicas, old.replicas + new.replicas);
            if grown != new.replicas {
                new.replicas = grown;
            } else {
                old.replicas = limits.old_sets(new, &[old])[0];
                old.available = old.available.min(old.replicas);
            }
            if (old.replicas, new.replicas) != (before.0, before.1) {
                steps.push((old.replicas, new.replicas));
            } else {
                new.available = new.replicas;
            }
            if before == (old.replicas, new.replicas, new.available) {
                return steps;
            }
        }
    }

    #[test]
    fn rollout_steps() {
        assert_eq!(
            play(4, None, Some(IntOrString::Int(1))),
            [(4, 1), (3, 1), (3, 2), (1, 2), (1, 4), (0, 4)],
            "the article's primary"
        );
        assert_eq!(play(2, None, Some(IntOrString::Int(0))), [(2, 1), (1, 1), (1, 2), (0, 2)]);
        assert_eq!(
            play(3, Some(IntOrString::Int(0)), None),
            [(2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 3)]
        );
        assert_eq!(play(1, None, None), [(1, 1), (0, 1)]);
    }

    #[test]
    fn unhealthy_pods_go_first() {
        let limits = Limits { replicas: 10, max_surge: 2, max_unavailable: 2 };
        let new = SetSize { replicas: 4, available: 0 };
        let broken = SetSize { replicas: 3, available: 0 };
        let healthy = SetSize { replicas: 8, available: 8 };
        // 15 pods, 4 of them new and unready, 8 must stay available: 3 may go, the broken ones.
        assert_eq!(limits.old_sets(new, &[healthy, broken]), [8, 0]);
        assert_eq!(limits.old_sets(SetSize { replicas: 2, available: 0 }, &[healthy]), [8]);
    }

    #[test]
    fn resizes_are_shared_in_proportion() {
        let check = |replicas, surge, before: &[(i32, i32)], expect: &[i32]| {
            let limits = Limits { replicas, max_surge: surge, max_unavailable: 0 };
            let sets: Vec<_> =
                before.iter().map(|&(replicas, max_replicas)| Share { replicas, max_replicas }).collect();
            assert_eq!(proportional(limits, &sets), expect);
        };
        check(15, 3, &[(8, 13), (5, 13)], &[11, 7]);
        check(20, 0, &[(5, 10), (5, 10)], &[10, 10]);
        check(5, 0, &[(10, 20), (10, 20)], &[2, 3]);
        check(0, 0, &[(3, 4), (1, 4)], &[0, 0]);
        check(10, 0, &[(5, 10), (5, 10)], &[5, 5]);
        check(6, 0, &[(1, 3), (1, 3), (1, 3)], &[2, 2, 2]);
    }

    proptest! {
        /// However pods come and go, a step never asks for more pods than size plus surge, and never takes an
        /// available pod that the minimum needs.
        #[test]
        fn steps_keep_the_limits(
            replicas in 1..40_i32,
            surge in 0..120_u32,
            unavailable in 0..100_u32,
            ready in proptest::collection::vec((0..8_i32, any::<bool>()), 1..60),
        ) {
            let limits = Limits::rolling(
                replicas,
                Some(&percent(&format!("{surge}%"))),
                Some(&percent(&format!("{unavailable}%"))),
            );
            let mut old = [SetSize { replicas: replicas / 2, available: replicas / 2 },
                           SetSize { replicas: replicas - replicas / 2, available: replicas - replicas / 2 }];
            let mut new = SetSize { replicas: 0, available: 0 };
            for (count, fails) in ready {
                let total = new.replicas + old[0].replicas + old[1].replicas;
                let grown = limits.new_set(true, new.replicas, total);
                prop_assert!(grown >= new.replicas);
                let pods = total - new.replicas + grown;
                prop_assert!(grown == new.replicas || pods <= replicas + limits.max_surge);
                new.replicas = grown;
                let sizes = limits.old_sets(new, &old);
                let available_before = new.available + old[0].available + old[1].available;
                for (set, size) in old.iter_mut().zip(sizes) {
                    prop_assert!((0..=set.replicas).contains(&size));
                    set.replicas = size;
                    set.available = set.available.min(size);
                }
                let available = new.available + old[0].available + old[1].available;
                prop_assert!(available >= limits.min_available() || available == available_before);
                if fails {
                    old[1].available = (old[1].available - count).max(0);
                } else {
                    new.available = (new.available + count).min(new.replicas);
                }
            }
            for _ in 0..200 {
                new.available = new.replicas;
                let total = new.replicas + old[0].replicas + old[1].replicas;
                new.replicas = limits.new_set(true, new.replicas, total);
                let sizes = limits.old_sets(new, &old);
                for (set, size) in old.iter_mut().zip(sizes) {
                    set.replicas = size;
                    set.available = set.available.min(size);
                }
            }
            prop_assert_eq!((new.replicas, old[0].replicas, old[1].replicas), (replicas, 0, 0));
        }

        #[test]
        fn proportional_sizes_add_up(
            replicas in 0..50_i32,
            surge in 0..10_i32,
            sets in proptest::collection::vec(1..20_i32, 1..5),
        ) {
            let before: i32 = sets.iter().sum();
            let shares: Vec<_> =
                sets.iter().map(|&replicas| Share { replicas, max_replicas: before }).collect();
            let limits = Limits { replicas, max_surge: surge, max_unavailable: 0 };
            let after: i32 = proportional(limits, &shares).iter().sum();
            prop_assert_eq!(after, if replicas > 0 { replicas + surge } else { 0 });
        }
    }
}
