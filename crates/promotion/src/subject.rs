//! Which version is meant, and how it would be run: a name as `fraud` or `fraud@2`, looked up in what is declared.

use std::collections::BTreeSet;
use std::time::SystemTime;

use sluicegate_core::{Code, Digest, Error, ModelRef, Result, VersionRef};
use sluicegate_registry::manifest::Manifest;
use sluicegate_registry::reconcile::Root;
use sluicegate_registry::source::Found;
use sluicegate_registry::source::dir::Directory;
use sluicegate_registry::spec::Run;
use sluicegate_registry::verify::Verified;
use sluicegate_registry::{Declared, Want};

/// A version that is looked at, and how it would be run.
pub struct Subject {
    /// Where its files are.
    pub found: Found,
    /// The name of its registry.
    pub registry: String,
    /// How it would be run.
    pub run: Run,
}

impl Subject {
    /// Looks for the version that `target` names: its own version, else the declared one, else the newest.
    ///
    /// # Errors
    /// [`Code::UnknownModel`] and [`Code::UnknownVersion`] with those that there are; [`Code::Io`] where a registry cannot be
    /// read.
    pub fn find(roots: &[Root], declared: &Declared, target: &ModelRef<'_>) -> Result<Self> {
        let mut found: Vec<(&str, Found)> = Vec::new();
        for root in roots {
            let listing = Directory { root: root.path.clone() }.list(SystemTime::now());
            let listing = listing.map_err(|error| error.at(format!("registry `{}`", root.name)))?;
            found.extend(listing.found.into_iter().map(|found| (root.name.as_str(), found)));
        }
        found.sort_by(|(_, a), (_, b)| (&a.model, a.version).cmp(&(&b.model, b.version)));
        let (run, from, want) = match declared {
            Declared::Everything(run) => {
                if !found.iter().any(|(_, found)| found.model.as_str() == target.model) {
                    return Err(unknown(target.model, found.iter().map(|(_, found)| found.model.as_str())));
                }
                (run, None, &Want::Latest)
            }
            Declared::Models(specs, _) => match specs.iter().find(|spec| spec.name.as_str() == target.model) {
                Some(spec) => (&spec.run, Some(spec.registry.as_str()), &spec.version),
                None => return Err(unknown(target.model, specs.iter().map(|spec| spec.name.as_str()))),
            },
        };
        let mut mine = found;
        mine.retain(|(root, found)| found.model.as_str() == target.model && from.is_none_or(|from| from == *root));
        let have: Vec<String> = mine.iter().map(|(_, found)| found.version.to_string()).collect();
        let place = match (&target.version, want) {
            (Some(VersionRef::Alias(_)), _) => None,
            (Some(VersionRef::Number(number)), _) | (None, Want::Number(number)) => {
                mine.iter().position(|(_, found)| found.version == *number)
            }
            (Some(VersionRef::Digest(digest)), _) | (None, Want::Digest(digest)) => {
                mine.iter().position(|(_, found)| has_digest(found, digest))
            }
            (None, Want::Latest) => mine.len().checked_sub(1),
            (None, Want::LatestOf(numbers)) => mine.iter().rposition(|(_, found)| numbers.contains(&found.version)),
        };
        let Some(place) = place else {
            let asked = match (&target.version, want) {
                (Some(version), _) => format!("version {version}"),
                (None, Want::Number(number)) => format!("version {number}, which is declared"),
                (None, Want::Digest(digest)) => format!("version {digest}, which is declared"),
                (None, Want::Latest | Want::LatestOf(_)) => "version at all".to_owned(),
            };
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            return Err(Error::new(
                Code::UnknownVersion,
                format!("model `{}` has no {asked}; its registry has: {have}", target.model),
            ));
        };
        let (registry, found) = mine.swap_remove(place);
        Ok(Self { found, registry: registry.to_owned(), run: run.clone() })
    }
}

fn has_digest(found: &Found, digest: &Digest) -> bool {
    let verified = Manifest::read(&found.path).and_then(|manifest| Verified::read(found.clone(), manifest));
    verified.is_ok_and(|verified| verified.digest == *digest)
}

fn unknown<'a>(model: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let names: BTreeSet<&str> = names.collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") };
    Error::new(Code::UnknownModel, format!("no model is called `{model}`; there are: {names}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluicegate_batch::{Execution, Limits};
    use sluicegate_engine::Options;
    use sluicegate_registry::spec::Residency;
    use sluicegate_registry::{Also, Spec};
    use sluicegate_testkit::folder::{Folder, version_digest};

    use super::*;

    fn run() -> Run {
        Run {
            options: Options::default(),
            limits: Limits { max_rows: 64, max_delay: Duration::ZERO, queue_rows: 4096 },
            execution: Execution::Auto,
            preferred: Vec::new(),
            priorities: sluicegate_registry::spec::Priorities::default(),
            timeout: Duration::from_secs(10),
            own_timeout: true,
            said: sluicegate_registry::spec::Said::default(),
            allow_signature_change: false,
            cache: None,
        }
    }

    fn registry() -> (Folder, Vec<Root>) {
        let folder = Folder::default();
        for version in [1, 2, 10] {
            folder.write("a", version, &[("model.onnx", version.to_string().as_bytes())]);
        }
        folder.write("b", 1, &[("model.onnx", b"b")]);
        let root = Root { name: "here".into(), path: folder.models(), poll: Duration::ZERO, settle: Duration::ZERO };
        (folder, vec![root])
    }

    fn spec(version: Want) -> Declared {
        let also = Also::Numbers(Vec::new());
        let name = "a".parse().expect("a name");
        let aliases = Default::default();
        let residency = Residency::Pinned;
        Declared::Models(vec![Spec { name, registry: "here".into(), version, also, aliases, residency, run: run() }], run())
    }

    #[test]
    fn the_version_asked_for_comes_before_the_declared_one_and_that_before_the_newest() {
        let (_folder, roots) = registry();
        let digest = version_digest(&[("model.onnx", b"2")]);
        for (declared, target, version) in [
            (Declared::Everything(run()), "a", 10),
            (Declared::Everything(run()), "a@2", 2),
            (spec(Want::Number(1)), "a", 1),
            (spec(Want::Number(1)), "a@10", 10),
            (spec(Want::Latest), "a", 10),
            (spec(Want::Digest(digest.clone())), "a", 2),
            (Declared::Everything(run()), &format!("a@{digest}"), 2),
        ] {
            let subject = Subject::find(&roots, &declared, &ModelRef::parse(target).expect("a reference")).expect(target);
            assert_eq!((subject.found.version, subject.registry.as_str()), (version, "here"), "{target}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let (_folder, roots) = registry();
        for (declared, target, code, words) in [
            (Declared::Everything(run()), "c", Code::UnknownModel, "there are: a, b"),
            (spec(Want::Latest), "b", Code::UnknownModel, "there are: a"),
            (Declared::Everything(run()), "a@3", Code::UnknownVersion, "no version 3; its registry has: 1, 2, 10"),
            (Declared::Everything(run()), "a@stable", Code::UnknownVersion, "no version @stable"),
            (spec(Want::Number(7)), "a", Code::UnknownVersion, "no version 7, which is declared"),
        ] {
            let found = Subject::find(&roots, &declared, &ModelRef::parse(target).expect("a reference"));
            let error = found.err().expect(target);
            assert_eq!(error.code(), code, "{target}");
            assert!(error.message().contains(words), "{error}");
        }
    }
}
