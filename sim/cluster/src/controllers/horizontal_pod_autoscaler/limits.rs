//! What becomes of a proposed size: stabilisation, rate limits, bounds. Pure; follows
//! `pkg/controller/podautoscaler/horizontal.go`.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
};

/// The window over which the highest recommendation holds, without a `behavior`.
const DOWNSCALE_STABILIZATION: Duration = Duration::from_secs(300);
/// Without a `behavior` a workload may double in one step, or reach this size.
const SCALE_UP_LIMIT_MIN: i32 = 4;

/// Reason and message of a condition.
pub(super) type Why = (&'static str, &'static str);

const READY_FOR_NEW_SCALE: Why = ("ReadyForNewScale", "recommended size matches current size");
const SCALE_DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const SCALE_UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN_RANGE: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const SCALE_UP_LIMIT: Why =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const SCALE_DOWN_LIMIT: Why =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// What an autoscaler remembers between its looks: recommendations, and the steps it took, by elapsed time.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Duration, i32)>,
    /// Changes of size; negative when shrinking.
    steps: Vec<(Duration, i32)>,
}

/// A size after all limits, and what the conditions say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    /// The size to set.
    pub(super) replicas: i32,
    /// Of the condition AbleToScale, which is true.
    pub(super) able: Why,
    /// Of the condition ScalingLimited.
    pub(super) limited: Why,
    /// Whether ScalingLimited is true.
    pub(super) is_limited: bool,
}

impl Memory {
    /// The size at the first look counts as a recommendation.
    pub(super) fn start(&mut self, current: i32, now: Duration) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Notes a step, for the rate limits of a `behavior`.
    pub(super) fn scaled(&mut self, before: i32, after: i32, now: Duration) {
        // No policy may look back further than 30 minutes.
        self.steps.retain(|(at, _)| now.saturating_sub(*at) <= Duration::from_secs(1800));
        self.steps.push((now, after - before));
    }

    /// Puts a proposed size through the autoscaler's limits.
    pub(super) fn limit(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        proposed: i32,
        now: Duration,
    ) -> Limited {
        let bounds = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        match &spec.behavior {
            None => self.limit_plain(bounds, current, proposed, now),
            Some(behavior) => self.limit_by_behavior(behavior, bounds, current, proposed, now),
        }
    }

    fn limit_plain(&mut self, (min, max): (i32, i32), current: i32, proposed: i32, now: Duration) -> Limited {
        let recent = |at: Duration| now.saturating_sub(at) <= DOWNSCALE_STABILIZATION;
        self.recommendations.retain(|(at, _)| recent(*at));
        let stabilized = self.recommendations.iter().map(|(_, size)| *size).fold(proposed, i32::max);
        self.recommendations.push((now, proposed));
        let able = if stabilized == proposed { READY_FOR_NEW_SCALE } else { SCALE_DOWN_STABILIZED };
        let rate = (2 * current).max(SCALE_UP_LIMIT_MIN);
        let (replicas, limited) = if stabilized < min {
            (min, TOO_FEW)
        } else if stabilized > max.min(rate) {
            if max > rate { (rate, SCALE_UP_LIMIT) } else { (max, TOO_MANY) }
        } else {
            (stabilized, WITHIN_RANGE)
        };
        Limited { replicas, able, limited, is_limited: replicas != stabilized }
    }

    fn limit_by_behavior(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        (min, max): (i32, i32),
        current: i32,
        proposed: i32,
        now: Duration,
    ) -> Limited {
        let up = Rules::of(behavior.scale_up.as_ref(), true);
        let down = Rules::of(behavior.scale_down.as_ref(), false);
        let longest = up.window.max(down.window);
        self.recommendations.retain(|(at, _)| now.saturating_sub(*at) < longest);
        let within = |window: Duration| {
            let recommendations = self.recommendations.iter();
            recommendations.filter(move |(at, _)| now.saturating_sub(*at) < window).map(|(_, size)| *size)
        };
        let floor = within(up.window).fold(proposed, i32::min);
        let ceiling = within(down.window).fold(proposed, i32::max);
        // The size moves up only to what all recent recommendations agree on, and down likewise.
        let stabilized = current.max(floor).min(ceiling);
        self.recommendations.push((now, proposed));
        let able = if stabilized == proposed {
            READY_FOR_NEW_SCALE
        } else if proposed >= current {
            SCALE_UP_STABILIZED
        } else {
            SCALE_DOWN_STABILIZED
        };
        let (replicas, limited) = if stabilized > current {
            let rate = self.up_limit(&up, current, now).max(current);
            let (allowed, why) = if max > rate { (rate, SCALE_UP_LIMIT) } else { (max, TOO_MANY) };
            if stabilized > allowed { (allowed, why) } else { (stabilized, WITHIN_RANGE) }
        } else if stabilized < current {
            let rate = self.down_limit(&down, current, now).min(current);
            let (allowed, why) = if min < rate { (rate, SCALE_DOWN_LIMIT) } else { (min, TOO_FEW) };
            if stabilized < allowed { (allowed, why) } else { (stabilized, WITHIN_RANGE) }
        } else {
            (stabilized, WITHIN_RANGE)
        };
        Limited { replicas, able, limited, is_limited: replicas != stabilized }
    }

    /// The size at the start of a policy's period.
    fn size_before(&self, policy: &HPAScalingPolicy, current: i32, now: Duration) -> i32 {
        let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or(0));
        let changes = self.steps.iter().filter(|(at, _)| now.saturating_sub(*at) < period);
        current - changes.map(|(_, change)| change).sum::<i32>()
    }

    fn up_limit(&self, rules: &Rules, current: i32, now: Duration) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let before = self.size_before(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => before + policy.value,
                _ => (f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        match rules.select.as_str() {
            "Disabled" => current,
            "Min" => limits.min().unwrap_or(current),
            _ => limits.max().unwrap_or(current),
        }
    }

    fn down_limit(&self, rules: &Rules, current: i32, now: Duration) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let before = self.size_before(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => before - policy.value,
                _ => (f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        match rules.select.as_str() {
            "Disabled" => current,
            "Min" => limits.max().unwrap_or(current),
            _ => limits.min().unwrap_or(current),
        }
    }
}

/// One direction of a `behavior`, defaults filled in.
struct Rules {
    window: Duration,
    select: String,
    policies: Vec<HPAScalingPolicy>,
}

impl Rules {
    fn of(rules: Option<&HPAScalingRules>, up: bool) -> Rules {
        let policy =
            |type_: &str, value| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 };
        let window = rules.and_then(|rules| rules.stabilization_window_seconds);
        Rules {
            window: window.map_or(if up { Duration::ZERO } else { DOWNSCALE_STABILIZATION }, |seconds| {
                Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
            }),
            select: rules.and_then(|rules| rules.select_policy.clone()).unwrap_or_else(|| "Max".to_owned()),
            policies: match rules.and_then(|rules| rules.policies.clone()) {
                Some(policies) if !policies.is_empty() => policies,
                _ if up => vec![policy("Pods", 4), policy("Percent", 100)],
                _ => vec![policy("Percent", 100)],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn spec(min: i32, max: i32, behavior: Value) -> HorizontalPodAutoscalerSpec {
        serde_json::from_value(json!({
            "minReplicas": min, "maxReplicas": max, "behavior": behavior,
            "scaleTargetRef": {"kind": "Deployment", "name": "podinfo"},
        }))
        .unwrap()
    }

    /// Looks every 15 s at a workload that takes each size at once; returns sizes and reasons.
    fn play(spec: &HorizontalPodAutoscalerSpec, start: i32, proposals: &[i32]) -> Vec<(i32, String)> {
        let mut memory = Memory::default();
        let mut current = start;
        let mut looks = Vec::new();
        for (look, proposed) in (1..).zip(proposals) {
            let now = Duration::from_secs(15 * look);
            memory.start(current, now);
            let limited = memory.limit(spec, current, *proposed, now);
            if limited.replicas != current {
                memory.scaled(current, limited.replicas, now);
            }
            current = limited.replicas;
            let why = if limited.is_limited { limited.limited.0 } else { limited.able.0 };
            looks.push((current, why.to_owned()));
        }
        looks
    }

    fn check(spec: &HorizontalPodAutoscalerSpec, start: i32, proposals: &[i32], expect: &[(i32, &str)]) {
        let looks = play(spec, start, proposals);
        let looks: Vec<_> = looks.iter().map(|(size, why)| (*size, why.as_str())).collect();
        assert_eq!(looks, expect);
    }

    #[test]
    fn without_behavior() {
        let spec = spec(2, 10, Value::Null);
        let (ready, held) = ("ReadyForNewScale", "ScaleDownStabilized");
        check(
            &spec,
            2,
            &[3, 20, 20, 1],
            &[(3, ready), (6, "ScaleUpLimit"), (10, "TooManyReplicas"), (10, "TooManyReplicas")],
        );
        check(&spec, 4, &[2, 2], &[(4, held), (4, held)]);
        // The 4 of the first look counts for 300 s: up to and with the look at 315 s.
        let looks = play(&spec, 4, &[1; 22]);
        assert_eq!((looks[20].0, looks[21].0, looks[21].1.as_str()), (4, 2, "TooFewReplicas"));
    }

    #[test]
    fn with_behavior() {
        let slow = spec(
            1,
            20,
            json!({
                "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 30}]},
                "scaleDown": {"stabilizationWindowSeconds": 0,
                              "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}]},
            }),
        );
        let (ready, up, down) = ("ReadyForNewScale", "ScaleUpLimit", "ScaleDownLimit");
        check(&slow, 2, &[9, 9, 9, 2], &[(4, up), (4, up), (6, up), (3, down)]);
        check(&slow, 4, &[3], &[(3, ready)]);
        let frozen =
            spec(1, 20, json!({"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}}));
        check(&frozen, 4, &[1, 9], &[(4, down), (8, up)]);
        let calm = spec(1, 20, json!({"scaleUp": {"stabilizationWindowSeconds": 60}}));
        check(&calm, 2, &[5, 5], &[(2, "ScaleUpStabilized"), (2, "ScaleUpStabilized")]);
    }

    proptest! {
        #[test]
        fn sizes_stay_in_bounds(
            min in 1..5_i32,
            span in 0..10_i32,
            proposals in proptest::collection::vec(1..40_i32, 1..40),
            behaves in any::<bool>(),
        ) {
            let spec = spec(min, min + span, if behaves { json!({}) } else { Value::Null });
            for (size, _) in play(&spec, min, &proposals) {
                prop_assert!((min..=min + span).contains(&size));
            }
        }
    }
}
