//! What callers changed of a model by hand, over what is declared of it. Holds until its declaration changes.

use std::collections::BTreeSet;

use crate::spec::{Also, Key, Overlay, Policy, Spec, Want};

/// Nothing is held.
pub(super) static NOTHING: Hold =
    Hold { declared: None, off: false, beside: BTreeSet::new(), without: BTreeSet::new(), overlay: None };

/// What is held of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hold {
    /// What was declared of it then; `None` where nothing was.
    pub declared: Option<Spec>,
    /// It was unloaded: of its versions only those serve that were loaded by hand.
    pub off: bool,
    /// Versions that were loaded by hand.
    pub beside: BTreeSet<u64>,
    /// Versions that were unloaded by hand.
    pub without: BTreeSet<u64>,
    /// How it was said to run.
    pub overlay: Option<Overlay>,
}

impl Hold {
    /// Whether a version must not serve.
    pub fn leaves(&self, version: u64) -> bool {
        self.without.contains(&version) || (self.off && !self.beside.contains(&version))
    }

    /// Whether it changes nothing.
    pub fn is_idle(&self) -> bool {
        *self == Self { declared: self.declared.clone(), ..Self::default() } && self.declared.is_some()
    }

    /// What is declared, changed by it. Versions that were loaded by hand are for the plan to keep.
    pub fn over(&self, mut spec: Spec) -> Spec {
        if let Some(overlay) = &self.overlay {
            let Overlay { max_rows, max_delay, instances, versions } = overlay;
            let limits = &mut spec.run.limits;
            limits.max_rows = max_rows.unwrap_or(limits.max_rows);
            limits.queue_rows = limits.queue_rows.max(limits.max_rows);
            limits.max_delay = max_delay.unwrap_or(limits.max_delay);
            if let Some(instances) = *instances {
                spec.run.options.instances = instances;
                spec.run.options.auto_instances = false;
            }
            if let Some(policy) = versions {
                (spec.version, spec.also) = policy.choose();
            }
            // It wins over a `config.pbtxt`, as the model's own entry does.
            let said = [
                max_rows.map(|_| [Key::MaxRows, Key::QueueRows]),
                max_delay.map(|_| [Key::MaxDelay; 2]),
                instances.map(|_| [Key::Instances; 2]),
            ];
            spec.run.said = spec.run.said.and(said.into_iter().flatten().flatten());
        }
        spec
    }

    /// As `/status` tells it.
    pub fn says(&self) -> String {
        let list = |what: &str, versions: &BTreeSet<u64>| {
            let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
            (!versions.is_empty()).then(|| format!("{what} {}", versions.join(", ")))
        };
        let words = [
            self.declared.is_none().then(|| "not declared".to_owned()),
            self.off.then(|| "unloaded".to_owned()),
            list("loaded version", &self.beside),
            list("unloaded version", &self.without),
            self.overlay.is_some().then(|| "loaded with a configuration".to_owned()),
        ];
        format!("by hand: {}", words.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

impl Policy {
    fn choose(&self) -> (Want, Also) {
        match self {
            Self::All => (Want::Latest, Also::All),
            Self::Newest(count) => (Want::Latest, Also::Newest(*count)),
            Self::These(numbers) => {
                let newest = numbers.iter().max().copied();
                (newest.map_or(Want::Latest, Want::Number), Also::Numbers(numbers.clone()))
            }
        }
    }
}
