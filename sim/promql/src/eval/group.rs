//! Groups of label sets under `by`, `without`, `on` and `ignoring`.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::ast::Grouping;
use crate::hash::{FixedHasher, FixedState};
use crate::labels::{Labels, METRIC_NAME};

impl Grouping {
    fn hash(&self, labels: &Labels) -> u64 {
        let mut hasher = FixedHasher::default();
        match self {
            Grouping::Only(names) => {
                for name in names {
                    labels.get(name).unwrap_or_default().hash(&mut hasher);
                }
            }
            Grouping::Without(names) => {
                for (name, value) in without(labels, names) {
                    name.hash(&mut hasher);
                    value.hash(&mut hasher);
                }
            }
        }
        hasher.finish()
    }

    fn same(&self, left: &Labels, right: &Labels) -> bool {
        match self {
            Grouping::Only(names) => names
                .iter()
                .all(|name| left.get(name).unwrap_or_default() == right.get(name).unwrap_or_default()),
            Grouping::Without(names) => without(left, names).eq(without(right, names)),
        }
    }

    /// The labels that the group of `labels` has in common.
    pub(super) fn of(&self, labels: &Labels) -> Labels {
        match self {
            Grouping::Only(names) => labels.filtered(|name| names.iter().any(|kept| kept == name)),
            Grouping::Without(names) => {
                labels.filtered(|name| name != METRIC_NAME && !names.iter().any(|dropped| dropped == name))
            }
        }
    }
}

fn without<'l>(
    labels: &'l Labels,
    names: &'l [String],
) -> impl Iterator<Item = (&'l Arc<str>, &'l Arc<str>)> {
    labels
        .pairs()
        .iter()
        .filter(move |(name, _)| &**name != METRIC_NAME && !names.iter().any(|dropped| **dropped == **name))
        .map(|(name, value)| (name, value))
}

/// Numbers the groups of label sets in order of appearance. Label sets whose hashes collide are told apart.
pub(super) struct Groups<'g> {
    grouping: &'g Grouping,
    /// The first group of each hash.
    by_hash: IndexMap<u64, usize, FixedState>,
    /// A member of each group, and the next group with the same hash.
    members: Vec<(Labels, Option<usize>)>,
}

impl<'g> Groups<'g> {
    pub(super) fn new(grouping: &'g Grouping) -> Self {
        Groups { grouping, by_hash: IndexMap::default(), members: Vec::new() }
    }

    pub(super) fn find(&self, labels: &Labels) -> Option<usize> {
        let mut next = self.by_hash.get(&self.grouping.hash(labels)).copied();
        while let Some(group) = next {
            let (member, following) = &self.members[group];
            if self.grouping.same(member, labels) {
                return Some(group);
            }
            next = *following;
        }
        None
    }

    /// The group of a label set, and whether it is new.
    pub(super) fn enter(&mut self, labels: &Labels) -> (usize, bool) {
        if let Grouping::Only(names) = self.grouping
            && names.is_empty()
            && !self.members.is_empty()
        {
            return (0, false);
        }
        let hash = self.grouping.hash(labels);
        let first = self.by_hash.get(&hash).copied();
        let mut next = first;
        while let Some(group) = next {
            let (member, following) = &self.members[group];
            if self.grouping.same(member, labels) {
                return (group, false);
            }
            next = *following;
        }
        let group = self.members.len();
        self.members.push((labels.clone(), first));
        self.by_hash.insert(hash, group);
        (group, true)
    }

    /// The labels of each group, in order of appearance.
    pub(super) fn labels(&self) -> impl Iterator<Item = Labels> {
        self.members.iter().map(|(member, _)| self.grouping.of(member))
    }
}
