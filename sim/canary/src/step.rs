//! How far the weight goes, and how far at a time.

use crd::CanaryAnalysis;

use crate::dialect::Dialect;

/// The weight at which promotion starts.
pub fn max_weight(analysis: &CanaryAnalysis, dialect: Dialect) -> i32 {
    match (dialect, analysis.step_weights.last()) {
        (Dialect::Latest, Some(last)) => (*last).min(100),
        _ if analysis.max_weight > 0 => analysis.max_weight,
        _ => 100,
    }
}

/// The weight to add at a weight; 0 if the analysis names no step.
pub fn next_step(analysis: &CanaryAnalysis, weight: i32, dialect: Dialect) -> i32 {
    let steps = &analysis.step_weights;
    if dialect == Dialect::Rc1 || analysis.step_weight > 0 || steps.is_empty() {
        return analysis.step_weight;
    }
    let left = 100 - weight;
    if left == 0 {
        // Any step leads on to promotion from here.
        return 1;
    }
    if weight == 0 {
        return steps[0].min(left);
    }
    steps.windows(2).find(|pair| pair[0] == weight).map_or(left, |pair| left.min(pair[1] - weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_steps_are_walked_and_unlisted_weights_jump_to_the_end() {
        let analysis = CanaryAnalysis { step_weights: vec![5, 20, 60], ..Default::default() };
        let check =
            |weight, step| assert_eq!(next_step(&analysis, weight, Dialect::Latest), step, "{weight}");
        check(0, 5);
        check(5, 15);
        check(20, 40);
        check(60, 40);
        check(33, 67);
        check(100, 1);
        assert_eq!(max_weight(&analysis, Dialect::Latest), 60);
        assert_eq!(next_step(&analysis, 0, Dialect::Rc1), 0);
        assert_eq!(max_weight(&analysis, Dialect::Rc1), 100);
    }
}
