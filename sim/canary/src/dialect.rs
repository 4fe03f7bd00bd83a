//! Which release of Flagger is followed.

use std::cmp::Ordering;

/// The release whose order of steps, verdicts and wording are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `v1.0.0-rc.1` (March 2020), and what came before it.
    Rc1,
    /// `v1.44.0` (2026), and what came between.
    Latest,
}

impl Dialect {
    /// The dialect of an image's tag: releases up to 1.0.0-rc.1 speak the old one, all others and tags that name no
    /// version the new one.
    pub fn from_tag(tag: &str) -> Self {
        match Version::parse(tag) {
            Some(version) if version <= Version { release: [1, 0, 0], candidate: Some(1) } => Dialect::Rc1,
            _ => Dialect::Latest,
        }
    }

    /// The version that an image with this tag reports: the tag's own, or that of the dialect's release.
    pub fn version(tag: &str) -> String {
        match Version::parse(tag) {
            Some(_) => tag.trim_start_matches('v').to_owned(),
            None => "1.44.0".to_owned(),
        }
    }
}

/// `MAJOR.MINOR.PATCH` with an optional release candidate, the only forms that Flagger was ever tagged with.
#[derive(PartialEq, Eq)]
struct Version {
    release: [u32; 3],
    candidate: Option<u32>,
}

impl Version {
    fn parse(tag: &str) -> Option<Version> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        let (release, suffix) = text.split_once('-').map_or((text, None), |(r, s)| (r, Some(s)));
        let mut parts = release.split('.').map(|part| part.parse().ok());
        let release = [parts.next()??, parts.next()??, parts.next()??];
        if parts.next().is_some() {
            return None;
        }
        // A suffix that counts nothing (`-alpine`) sorts before all candidates, as semver has it for text.
        let count = |suffix: &str| suffix.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let candidate = suffix.map(count);
        Some(Version { release, candidate })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        // A release without a suffix comes after its candidates.
        let rank = |candidate: Option<u32>| candidate.unwrap_or(u32::MAX);
        Some(self.release.cmp(&other.release).then(rank(self.candidate).cmp(&rank(other.candidate))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_choose_the_dialect() {
        let check = |tag: &str, dialect: Dialect, version: &str| {
            assert_eq!(Dialect::from_tag(tag), dialect, "{tag}");
            assert_eq!(Dialect::version(tag), version, "{tag}");
        };
        check("1.0.0-rc.1", Dialect::Rc1, "1.0.0-rc.1");
        check("0.23.0", Dialect::Rc1, "0.23.0");
        check("v1.0.0-rc.2", Dialect::Latest, "1.0.0-rc.2");
        check("1.0.0", Dialect::Latest, "1.0.0");
        check("1.44.0", Dialect::Latest, "1.44.0");
        check("latest", Dialect::Latest, "1.44.0");
    }
}
