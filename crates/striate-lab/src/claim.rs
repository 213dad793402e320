//! Claims as plain data, each with the function that puts it to the test.
use crate::claims::CLAIMS;
use crate::verdict::{Check, Verdict};
use crate::{Lab, LabError, Training};
use serde::{Deserialize, Serialize};
use std::fmt;
use striate_torch::nearest;

/// How much an experiment spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// A few minutes on two cores: smaller networks, fewer images, fewer steps.
    Quick,
    /// Deeper networks, or more images, steps and seeds: up to 20 minutes on two cores.
    Full,
}

impl Scale {
    /// The first for a quick run, the second for a full one.
    pub fn pick<T>(self, [quick, full]: [T; 2]) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick(["quick", "full"]))
    }
}

/// What a paper or a lecture claims, and how it is put to the test.
#[derive(Debug)]
pub struct Claim {
    /// The name to run it by.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub title: &'static str,
    /// What is claimed.
    pub claim: &'static str,
    /// Who claims it, and where.
    pub source: &'static str,
    /// The claim in a form that can be measured.
    pub hypothesis: &'static str,
    /// What would refute it.
    pub refuted_if: &'static str,
    /// What is built, and how it is trained.
    pub recipe: Setup,
    /// Seeds of a quick run and of a full one; 0 if nothing is drawn that the verdict rests on.
    pub seeds: [usize; 2],
    /// About how many minutes each takes on two cores.
    pub minutes: [f64; 2],
    /// Measures.
    pub(crate) run: fn(&mut Lab) -> Result<Finding, LabError>,
}

impl Claim {
    /// Whether it is a matter of exact equality, and not of chance.
    pub fn is_exact(&self) -> bool {
        self.seeds == [0, 0]
    }
}

/// What an experiment takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// The networks, or whatever else is computed.
    pub networks: &'static str,
    /// How each network is trained, in a quick run and in a full one; none if nothing is trained.
    pub training: Option<[Training; 2]>,
    /// Learning rates of which each network is trained with its best, in place of the training's own; may be empty.
    pub rates: &'static [f64],
}

impl Setup {
    /// Of what is computed without training.
    pub(crate) const fn untrained(networks: &'static str) -> Self {
        Self { networks, training: None, rates: &[] }
    }

    /// Of networks that are trained with the learning rate of their training.
    pub(crate) const fn trained(networks: &'static str, training: [Training; 2]) -> Self {
        Self { networks, training: Some(training), rates: &[] }
    }

    /// In words, for a quick run or a full one.
    pub fn at(&self, scale: Scale) -> String {
        let Some(training) = self.training.map(|both| scale.pick(both)) else { return self.networks.to_owned() };
        let rates: Vec<String> = self.rates.iter().map(f64::to_string).collect();
        let rate = match rates.split_last() {
            None => training.lr.to_string(),
            Some((last, others)) => format!("the best of {} and {last}", others.join(", ")),
        };
        format!("{} {training}, from a learning rate of {rate} down to 0 with a cosine.", self.networks)
    }
}

/// All claims, in the order in which the lecture comes to them.
pub fn claims() -> &'static [Claim] {
    CLAIMS
}

/// The claim of that name.
///
/// # Errors
///
/// An unknown name; the message has the nearest one.
pub fn find_claim(name: &str) -> Result<&'static Claim, LabError> {
    claims().iter().find(|claim| claim.name == name).ok_or_else(|| {
        let told = match nearest(name, claims().iter().map(|claim| claim.name)) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`lab list` names all".to_owned(),
        };
        LabError::Usage(format!("there is no claim {name:?}: {told}"))
    })
}

/// What came of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What the claim says, point by point, with what was measured.
    pub checks: Vec<Check>,
    /// What else is worth knowing, such as what the runs cannot tell; may be empty.
    pub remarks: String,
    /// The raw numbers.
    pub table: Table,
    /// The figure, as SVG.
    pub figure: String,
}

impl Finding {
    /// The verdict that follows from the checks.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.checks)
    }
}

/// Numbers with a name to each column.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each with a cell to every column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(columns: [&str; N]) -> Self {
        Self { columns: columns.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Comma-separated values (RFC 4180).
    pub fn to_csv(&self) -> String {
        let cell = |cell: &String| match cell.contains([',', '"', '\n']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let line = |cells: &Vec<String>| cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(&self.columns).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_says_what_it_takes() {
        let names: std::collections::BTreeSet<_> = claims().iter().map(|claim| claim.name).collect();
        assert_eq!(names.len(), claims().len());
        for claim in claims() {
            for text in [claim.title, claim.claim, claim.source, claim.hypothesis, claim.refuted_if, claim.recipe.networks] {
                assert!(!text.is_empty(), "{}", claim.name);
            }
            assert!(claim.minutes[0] <= 5.0, "{}: a quick run takes up to 5 minutes", claim.name);
            assert!(claim.minutes[1] <= 20.0, "{}: a full run takes up to 20 minutes", claim.name);
            assert!(claim.seeds[0] <= claim.seeds[1] && claim.seeds[0] != 1, "{}: one seed tells nothing", claim.name);
        }
    }

    #[test]
    fn an_unknown_claim_has_a_nearest_name() {
        let error = find_claim("degradatoin").unwrap_err().to_string();
        assert_eq!(error, "there is no claim \"degradatoin\": did you mean degradation?");
        assert!(find_claim("transformers").unwrap_err().to_string().contains("lab list"));
    }

    #[test]
    fn a_recipe_tells_what_is_trained_and_how() {
        let quick =
            Training { size: 16, train: 512, test: 64, batch: 32, epochs: 2, lr: 0.1, weight_decay: 1e-4, aux_weight: 0.0 };
        let both = [quick, Training { epochs: 9, aux_weight: 0.3, ..quick }];
        let recipe = Setup::trained("Two networks.", both);
        assert_eq!(
            recipe.at(Scale::Quick),
            "Two networks. Each is trained on 512 images, or as many as there are, of 16x16 pixels and tested on 64: 2 epochs, \
             batches of 32, stochastic gradient descent with a momentum of 0.9 and a weight decay of 0.0001, from a learning rate of 0.1 down to 0 with a cosine."
        );
        let best = Setup { rates: &[0.01, 0.03, 0.1], ..recipe }.at(Scale::Full);
        assert!(best.contains(": 9 epochs, ") && best.contains("with the losses of auxiliary heads times 0.3, from"), "{best}");
        assert!(best.contains("a learning rate of the best of 0.01, 0.03 and 0.1 down"), "{best}");
        assert_eq!(Setup::untrained("Counts.").at(Scale::Full), "Counts.");
    }

    #[test]
    fn cells_with_commas_are_quoted() {
        let mut table = Table::new(["shape", "n"]);
        table.push(["[3, 4]".to_owned(), "1".to_owned()]);
        table.push(["a \"b\"".to_owned(), "2".to_owned()]);
        assert_eq!(table.to_csv(), "shape,n\n\"[3, 4]\",1\n\"a \"\"b\"\"\",2\n");
    }
}
