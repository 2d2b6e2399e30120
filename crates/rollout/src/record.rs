//! A decision with all that it follows from, so that anybody can decide again and see whether it comes out the same.

use serde::{Deserialize, Serialize};

use crate::decide::{self, Decision, Look, decide};
use crate::spec::Spec;
use crate::state::{Command, State};

/// A decision and all that it follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was declared.
    pub spec: Spec,
    /// How far it was.
    pub state: State,
    /// What was seen.
    pub look: Look,
    /// What a person said, where one did.
    pub command: Option<Command>,
    /// What was decided.
    pub decision: Decision,
}

impl Record {
    /// Decides again.
    ///
    /// # Errors
    /// A sentence that says what comes out otherwise.
    pub fn replay(&self) -> Result<(), String> {
        let again = match self.command {
            Some(command) => decide::command(&self.spec, &self.state, command, &self.look, &self.decision.sentence).map(Some)?,
            None => decide(&self.spec, &self.state, &self.look),
        };
        match again {
            None => Err(format!("recorded was {}, and nothing is decided from what was seen", self.decision.kind.name())),
            Some(again) if again == self.decision => Ok(()),
            Some(again) => Err(format!(
                "recorded was {} ({}), and what was seen gives {} ({})",
                self.decision.kind.name(),
                self.decision.sentence,
                again.kind.name(),
                again.sentence
            )),
        }
    }
}
