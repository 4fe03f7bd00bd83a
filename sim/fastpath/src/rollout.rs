//! One rollout: ticks at the Canary's interval until it is promoted, rolled back, or will never end.

use canary::{Kind, Message};

use crate::automaton::{Automaton, Side};
use crate::draws::Draws;
use crate::reading::Reading;
use crate::setting::{HORIZON_MS, Setting};
use crate::tick::{Answer, Effects, Failure, Oracle, Question, Reason, State, tick};
use crate::world::{Memory, World};

/// The most ticks of a rollout: one that goes on longer has no end.
const TICKS: u32 = 5_000;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The new version was promoted.
    Promoted,
    /// It was rolled back.
    RolledBack(Reason),
    /// It goes on for ever.
    Endless,
}

/// What came of a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Milliseconds from the release to the end.
    pub time: i64,
    /// The first failed check: the metric's index, why, and milliseconds from the release.
    pub first_failure: Option<(u8, Failure, i64)>,
    /// Whether the last failed check before a rollback had no values.
    pub last_failure: Option<(u8, Failure)>,
    /// Failed checks.
    pub failed_checks: u32,
    /// Requests of users that the canary answered.
    pub user_requests: u64,
    /// Those that failed.
    pub user_errors: u64,
    /// The greatest weight.
    pub weight: i32,
}

/// The world's side of a rollout: what the controller's actions lead to, and what it reads.
struct Course<'a, 'm> {
    setting: &'a Setting<'a>,
    world: World<'a, 'm>,
    now: i64,
    scaled: i64,
    copied: i64,
    outcome: Outcome,
}

impl<'a, 'm> Course<'a, 'm> {
    fn new(setting: &'a Setting<'a>, memory: &'m mut Memory, draws: Draws, index: u64) -> Self {
        let world = World::new(setting, memory, draws, index);
        let outcome = Outcome {
            end: End::Endless,
            time: 0,
            first_failure: None,
            last_failure: None,
            failed_checks: 0,
            user_requests: 0,
            user_errors: 0,
            weight: 0,
        };
        Course { setting, now: world.first_tick, world, scaled: i64::MAX, copied: i64::MAX, outcome }
    }

    /// The time of a tick has come.
    #[inline]
    fn arrive(&mut self) {
        // Once the primary has the new template, nobody looks at what happens to the canary.
        if self.copied == i64::MAX {
            self.world.tick(self.now);
        }
    }

    #[inline]
    fn read(&mut self, question: Question) -> (Side, Reading) {
        let now = self.now;
        let side = match question {
            Question::PrimaryReady => {
                if now >= self.copied.saturating_add(self.setting.promotion) {
                    Side::Good
                } else {
                    Side::Low
                }
            }
            Question::CanaryReady => {
                let ready =
                    self.setting.startup.is_some_and(|startup| now >= self.scaled.saturating_add(startup));
                if ready {
                    Side::Good
                } else if now > self.scaled.saturating_add(self.setting.deadline) {
                    Side::High
                } else {
                    Side::Low
                }
            }
            Question::LoadTest(hook) => {
                self.world.call(now, usize::from(hook));
                Side::Good
            }
            Question::Check(check) => {
                let reading = self.world.read(now, usize::from(check));
                let side = match reading {
                    Reading::Passes => Side::Good,
                    Reading::Low(_) => Side::Low,
                    Reading::High(_) => Side::High,
                    Reading::Empty | Reading::Broken => Side::Empty,
                    Reading::NotANumber => Side::NotANumber,
                };
                return (side, reading);
            }
        };
        (side, Reading::Passes)
    }

    /// Takes note of what a tick did; whether the rollout goes on.
    #[inline]
    fn take(&mut self, effects: &Effects) -> bool {
        let now = self.now;
        if effects.scaled_up {
            self.scaled = now;
            if let Some(startup) = self.setting.startup {
                self.world.ready_at(now.saturating_add(startup));
            }
        }
        if effects.copied {
            self.copied = now;
        }
        if let Some((_, canary, mirrored)) = effects.routes {
            let (share, visible) = self.share(canary, mirrored);
            self.world.route(now, share, visible);
            self.outcome.weight = self.outcome.weight.max(canary);
        }
        if let Some((check, failure)) = effects.failed {
            self.outcome.failed_checks += 1;
            self.outcome.first_failure = self.outcome.first_failure.or(Some((check, failure, now)));
            self.outcome.last_failure = Some((check, failure));
        }
        if let Some(promoted) = effects.ended {
            self.outcome.end = match (promoted, effects.rolled_back) {
                (true, _) => End::Promoted,
                (false, reason) => End::RolledBack(reason.unwrap_or(Reason::Other)),
            };
            return false;
        }
        self.now += self.setting.policy.interval;
        true
    }

    /// The canary's share of the users' requests in percent, and whether they wait for its answers.
    fn share(&self, canary: i32, mirrored: bool) -> (u32, bool) {
        if mirrored {
            return (self.setting.mirrored, false);
        }
        match self.setting.matching {
            Some(matching) => (if canary > 0 { matching } else { 0 }, true),
            None => (canary.clamp(0, 100) as u32, true),
        }
    }

    fn finish(mut self) -> Outcome {
        self.world.finish(self.now);
        self.outcome.time = self.now;
        self.outcome.user_requests = self.world.user_requests;
        self.outcome.user_errors = self.world.user_errors;
        self.outcome
    }
}

/// Runs a rollout over the policy's table.
pub fn walk<'a>(
    setting: &'a Setting<'a>,
    automaton: &mut Automaton<'a>,
    memory: &mut Memory,
    draws: Draws,
    index: u64,
) -> Outcome {
    let mut course = Course::new(setting, memory, draws, index);
    let mut state = 0;
    for _ in 0..TICKS {
        course.arrive();
        let (next, effects) = automaton.tick(state, |question| course.read(question).0);
        let stays = next == state && effects == Effects::default();
        state = next;
        if !course.take(&effects) {
            break;
        }
        if course.now > HORIZON_MS || (stays && course.cannot_end()) {
            break;
        }
    }
    course.finish()
}

impl Course<'_, '_> {
    /// A policy without steps or iterations that passes its checks repeats them for ever.
    fn cannot_end(&self) -> bool {
        let analysis = self.setting.policy.canary.spec.analysis();
        let steps = analysis.is_some_and(|analysis| {
            analysis.step_weight > 0 || !analysis.step_weights.is_empty() || analysis.iterations > 0
        });
        !steps && self.now > 3_600_000
    }
}

/// A line of a rollout's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds from the release.
    pub at: i64,
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The controller's message.
    pub message: String,
    /// The canary's weight and failed checks after the tick.
    pub weight: i32,
    /// Failed checks after the tick.
    pub failed_checks: i32,
}

struct Witness<'a, 'm, 'o> {
    course: &'o mut Course<'a, 'm>,
    lines: &'o mut Vec<Line>,
}

impl Oracle for Witness<'_, '_, '_> {
    fn answer(&mut self, question: Question) -> Option<Answer> {
        let (side, reading) = self.course.read(question);
        let Question::Check(check) = question else {
            return Some(match side {
                Side::Good => Answer::Yes,
                Side::High => Answer::TooLate,
                _ => Answer::NotYet,
            });
        };
        let asked = &self.course.setting.policy.checks[usize::from(check)];
        Some(match reading {
            Reading::Passes => Answer::Value(match (asked.min, asked.max) {
                (Some(min), Some(max)) => (min + max) / 2.0,
                (Some(bound), None) | (None, Some(bound)) => bound,
                (None, None) => 0.0,
            }),
            Reading::Low(value) | Reading::High(value) => Answer::Value(value),
            Reading::NotANumber => Answer::Value(f64::NAN),
            Reading::Empty | Reading::Broken => Answer::Empty,
        })
    }

    fn hear(&mut self, kind: Kind, message: &Message<'_>) {
        let is_warning = matches!(kind, Kind::Warning | Kind::Error);
        let at = self.course.now;
        self.lines.push(Line { at, is_warning, message: message.to_string(), weight: 0, failed_checks: 0 });
    }
}

/// Runs a rollout over the core itself, and tells all that the controller says. Same outcome as [`walk`].
pub fn witness<'a>(
    setting: &'a Setting<'a>,
    memory: &mut Memory,
    draws: Draws,
    index: u64,
) -> (Outcome, Vec<Line>) {
    let mut course = Course::new(setting, memory, draws, index);
    let mut lines = Vec::new();
    let mut state = State::START;
    for _ in 0..TICKS {
        course.arrive();
        let (now, said) = (course.now, lines.len());
        let ticked =
            tick(setting.policy, state, now, &mut Witness { course: &mut course, lines: &mut lines });
        let (next, effects) = ticked.expect("a witness answers every question");
        let stays = next == state && effects == Effects::default();
        state = next;
        for line in &mut lines[said..] {
            (line.weight, line.failed_checks) = (state.canary, state.failed_checks);
        }
        if !course.take(&effects) {
            break;
        }
        if course.now > HORIZON_MS || (stays && course.cannot_end()) {
            break;
        }
    }
    (course.finish(), lines)
}
