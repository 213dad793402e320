//! What a run trains: network, data, and the batches of both kinds.
use crate::Error;
use crate::data::Parts;
use striate_datasets::{Dataset, Loader, LoaderOptions, Preprocess};
use striate_graph::Network;
use striate_models::BundleInfo;
use striate_train::{Teacher, TrainConfig};

/// Images of one evaluation step of a process.
const EVAL_BATCH: usize = 256;

/// A run that is ready to train: see [`Run::prepare`](crate::Run::prepare).
#[derive(Debug)]
pub struct Prepared {
    /// What the run's bundle will say.
    pub info: BundleInfo,
    /// The network, with the weights that it starts from.
    pub network: Network,
    /// Its data, as the network wants them but for normalising.
    pub data: Parts,
    /// How it is trained.
    pub config: TrainConfig,
    /// Whom the network learns from beside the data, if there is somebody: for [`Trainer::teacher`](striate_train::Trainer::teacher).
    pub teacher: Option<Teacher>,
    /// How images become inputs.
    pub preprocess: Preprocess,
    /// How batches to learn from are made.
    pub batches: LoaderOptions,
}

impl Prepared {
    /// Batches to learn from.
    ///
    /// # Errors
    ///
    /// Options that do not fit the data.
    pub fn train_loader(&self) -> Result<Loader<'_>, Error> {
        Ok(Loader::new(&*self.data.train, self.preprocess.clone(), self.batches.clone())?)
    }

    /// Batches by which the best epoch is chosen, of `val` or `test`, with that name.
    ///
    /// # Errors
    ///
    /// Neither is there.
    pub fn judge_loader(&self) -> Result<(&'static str, Loader<'_>), Error> {
        match (&self.data.val, &self.data.test) {
            (Some(val), _) => Ok(("val", self.eval_loader(&**val)?)),
            (None, Some(test)) => Ok(("test", self.eval_loader(&**test)?)),
            (None, None) => Err(Error::NothingToJudgeBy { folder: self.data.train.name().into() }),
        }
    }

    /// Batches that the run is tested on at its end: of the test set, or of `val` if there is none beside it.
    ///
    /// # Errors
    ///
    /// Neither is there.
    pub fn test_loader(&self) -> Result<Loader<'_>, Error> {
        match self.last_judge_loader()? {
            Some(loader) => Ok(loader),
            None => Ok(self.judge_loader()?.1),
        }
    }

    /// Batches of the test set, if no epoch is chosen by it.
    pub(crate) fn last_judge_loader(&self) -> Result<Option<Loader<'_>>, Error> {
        let test = self.data.test.as_deref().filter(|_| self.data.val.is_some());
        test.map(|test| self.eval_loader(test)).transpose()
    }

    fn eval_loader<'d>(&self, data: &'d dyn Dataset) -> Result<Loader<'d>, Error> {
        let LoaderOptions { workers, portion, .. } = self.batches;
        let options = LoaderOptions { workers, portion, ..LoaderOptions::eval(EVAL_BATCH * portion.of) };
        Ok(Loader::new(data, self.preprocess.clone(), options)?)
    }
}
