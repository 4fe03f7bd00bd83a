//! A policy's decisions as a table that grows as it is used.
//!
//! What a tick does follows from the Canary's status and from the answers that it gets, and there are few of both. So
//! `canary`'s core is asked once for each status and each sequence of answers, and from then on a rollout is a walk
//! over the table. Values do not matter to it, only on which side of a bound they are: each side stands in for all of
//! its values. A test holds the walk to the core itself, rollout by rollout.

use std::collections::BTreeMap;

use crate::policy::{Check, Policy, Probe};
use crate::tick::{Answer, Effects, Oracle, Question, State, tick};

/// Sides of an answer.
pub const SIDES: usize = 5;

/// Which side an answer is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// Yes; within bounds.
    Good = 0,
    /// Not yet; below the least.
    Low = 1,
    /// Too late; above the most.
    High = 2,
    /// No series.
    Empty = 3,
    /// Not a number.
    NotANumber = 4,
}

const SIDE_OF: [Side; SIDES] = [Side::Good, Side::Low, Side::High, Side::Empty, Side::NotANumber];

/// A place in the table.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// The tick asks; the places that the answers lead to, 0 where nobody has been.
    Ask { question: Question, next: [u32; SIDES] },
    /// The tick is over.
    Done { state: u32, effects: Effects },
}

/// The table of one policy.
pub struct Automaton<'a> {
    policy: &'a Policy,
    states: Vec<State>,
    known: BTreeMap<State, u32>,
    /// The first place of each state's tick; 0 where nobody has been.
    roots: Vec<u32>,
    nodes: Vec<Node>,
}

/// Answers a sequence of questions, then has no answer.
struct Script<'a> {
    policy: &'a Policy,
    sides: &'a [Side],
    at: usize,
    asked: Option<Question>,
}

impl Oracle for Script<'_> {
    fn answer(&mut self, question: Question) -> Option<Answer> {
        let Some(side) = self.sides.get(self.at) else {
            self.asked = Some(question);
            return None;
        };
        self.at += 1;
        Some(match question {
            Question::Check(index) => representative(&self.policy.checks[index as usize], *side),
            _ => match side {
                Side::Good => Answer::Yes,
                Side::High => Answer::TooLate,
                _ => Answer::NotYet,
            },
        })
    }
}

/// A value on a side of a check's bounds.
fn representative(check: &Check, side: Side) -> Answer {
    // Builtin durations are compared in whole milliseconds.
    let step: f64 =
        if matches!(check.probe, Probe::Quantile { whole_millis: true, .. }) { 2.0 } else { 1e-3 };
    match side {
        Side::Good => Answer::Value(match (check.min, check.max) {
            (Some(min), Some(max)) => (min + max) / 2.0,
            (Some(bound), None) | (None, Some(bound)) => bound,
            (None, None) => 0.0,
        }),
        Side::Low => Answer::Value(check.min.map_or(f64::MIN, |min| min - step.max(min.abs() * 1e-9))),
        Side::High => Answer::Value(check.max.map_or(f64::MAX, |max| max + step.max(max.abs() * 1e-9))),
        Side::Empty => Answer::Empty,
        Side::NotANumber => Answer::Value(f64::NAN),
    }
}

impl<'a> Automaton<'a> {
    /// An empty table.
    pub fn new(policy: &'a Policy) -> Self {
        let filler = Node::Done { state: 0, effects: Effects::default() };
        let mut automaton = Automaton {
            policy,
            states: Vec::new(),
            known: BTreeMap::new(),
            roots: Vec::new(),
            nodes: vec![filler],
        };
        automaton.intern(State::START);
        automaton
    }

    fn intern(&mut self, state: State) -> u32 {
        if let Some(index) = self.known.get(&state) {
            return *index;
        }
        let index = self.states.len() as u32;
        self.states.push(state);
        self.roots.push(0);
        self.known.insert(state, index);
        index
    }

    /// How many statuses have been met.
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// Runs a tick from a state by number (0 is the release), asking `answer` what the table does not decide.
    #[inline]
    pub fn tick(&mut self, state: u32, mut answer: impl FnMut(Question) -> Side) -> (u32, Effects) {
        let mut at = self.roots[state as usize];
        if at == 0 {
            at = self.explore(state, &[]);
            self.roots[state as usize] = at;
        }
        let mut sides = [Side::Good; 64];
        let mut depth = 0;
        loop {
            match self.nodes[at as usize] {
                Node::Done { state, effects } => return (state, effects),
                Node::Ask { question, next } => {
                    let side = answer(question);
                    sides[depth] = side;
                    depth += 1;
                    let mut to = next[side as usize];
                    if to == 0 {
                        to = self.explore(state, &sides[..depth]);
                        if let Node::Ask { next, .. } = &mut self.nodes[at as usize] {
                            next[side as usize] = to;
                        }
                    }
                    at = to;
                }
            }
        }
    }

    /// Asks the core what comes after these answers.
    #[cold]
    fn explore(&mut self, state: u32, sides: &[Side]) -> u32 {
        let mut script = Script { policy: self.policy, sides, at: 0, asked: None };
        let node = match tick(self.policy, self.states[state as usize], 0, &mut script) {
            Some((next, effects)) => Node::Done { state: self.intern(next), effects },
            None => {
                let question = script.asked.expect("a tick stops at a question only");
                Node::Ask { question, next: [0; SIDES] }
            }
        };
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }
}

/// The most questions of a tick: both readiness questions, each webhook and each metric.
pub fn fits(policy: &Policy) -> Result<(), String> {
    let hooks = policy.load_tests.iter().flatten().count();
    let questions = 2 + hooks + policy.checks.len();
    if questions <= 64 {
        return Ok(());
    }
    Err(format!(
        "canary {}: {questions} metrics and load tests, at most 62 are simulated",
        policy.canary.name()
    ))
}

impl Side {
    /// The side with a number.
    pub fn of(number: u8) -> Side {
        SIDE_OF[usize::from(number).min(SIDES - 1)]
    }
}
