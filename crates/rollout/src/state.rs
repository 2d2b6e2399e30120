//! How far a rollout came, and what may be said to it by hand.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a rollout came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The digest of what is declared. What was decided holds until that changes.
    pub digest: String,
    /// Where it stands.
    pub phase: Phase,
    /// The stage that it is in.
    pub stage: usize,
    /// When the stage began, in Unix milliseconds: once both versions were ready. `None` before.
    pub since_ms: Option<u64>,
    /// Counts the changes, over all rollouts of the model: who writes the next one must know the last.
    pub revision: u64,
    /// Who or what decided last, and why.
    pub reason: String,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It moves by itself.
    Running,
    /// It waits for a person.
    Paused,
    /// The candidate answers.
    Promoted,
    /// Stable answers, until something else is declared.
    RolledBack,
}

/// What a person may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The candidate is to answer from now on.
    Promote,
    /// Stable is to answer from now on.
    Rollback,
    /// Everything is to stay as it is.
    Pause,
    /// It is to go on: to the next stage, where it waits for that.
    Resume,
}

impl Phase {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Promoted, Self::RolledBack];
}

impl Command {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl FromStr for Command {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Promote, Self::Rollback, Self::Pause, Self::Resume];
        let found = all.into_iter().find(|command| command.name() == text);
        found.ok_or_else(|| format!("expected promote, rollback, pause or resume, got `{text}`"))
    }
}

impl State {
    /// Before anything was decided, and so kept. `last` is the revision of what was declared before.
    pub fn new(digest: String, last: u64) -> Self {
        Self { digest, phase: Phase::Running, stage: 0, since_ms: None, revision: last, reason: "declared".to_owned() }
    }

    /// What two who did not see each other agree upon: a rollback is never undone, and of two others the later one holds.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        if self.digest != other.digest {
            return if other.revision > self.revision { other.clone() } else { self.clone() };
        }
        let is_back = |state: &Self| state.phase == Phase::RolledBack;
        match (is_back(self), is_back(other)) {
            (true, false) => Self { revision: self.revision.max(other.revision), ..self.clone() },
            (false, true) => Self { revision: self.revision.max(other.revision), ..other.clone() },
            _ if other.revision > self.revision => other.clone(),
            _ => self.clone(),
        }
    }
}
