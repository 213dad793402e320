use crate::TrainError;
use striate_torch::foreach;
use striate_torch::optim::{LearningRate, ScaledRate};
use tch::{TchError, Tensor};

/// The parameters of one learning rate, weight decay and device, with their gradients: lists of
/// equal length.
#[derive(Debug)]
pub struct Group<'l> {
    /// The parameters, which a step changes in place.
    pub params: Vec<Tensor>,
    /// Their gradients.
    pub grads: Vec<Tensor>,
    /// What the rule keeps, by slot, then by parameter.
    pub state: Vec<Vec<Tensor>>,
    /// The learning rate.
    pub lr: LearningRate<'l>,
    /// What [`lr`](Self::lr) is multiplied by.
    pub lr_scale: f64,
    /// The weight decay.
    pub weight_decay: f64,
    /// Whether Muon trains them by SGD. Other rules ignore it.
    pub plain: bool,
}

impl<'l> Group<'l> {
    /// The learning rate with its scale.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn rate(&self) -> Result<ScaledRate<'l>, TrainError> {
        Ok(self.lr.scaled(self.lr_scale)?)
    }

    /// What the rule keeps in this slot, by parameter; nothing where there is no such slot.
    pub fn slot(&self, slot: usize) -> &[Tensor] {
        self.state.get(slot).map_or(&[], Vec::as_slice)
    }

    /// New tensors: the gradients with the weight decay as an L2 penalty.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn decaying_grads(&self) -> Result<Vec<Tensor>, TrainError> {
        let grads = foreach::copies(&self.grads)?;
        self.add_decay(&grads)?;
        Ok(grads)
    }

    /// Adds the parameters times the weight decay to what is about to be subtracted from them.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn add_decay(&self, updates: &[Tensor]) -> Result<(), TrainError> {
        if self.weight_decay != 0.0 {
            foreach::add(updates, &self.params, self.weight_decay)?;
        }
        Ok(())
    }

    /// Those parameters that fit, and the others.
    pub fn split(&self, fits: impl Fn(&Tensor) -> bool) -> (Self, Self) {
        let part = |fitting: bool| {
            let mut part =
                Self { params: Vec::new(), grads: Vec::new(), state: self.state.iter().map(|_| Vec::new()).collect(), ..*self };
            for (i, param) in self.params.iter().enumerate().filter(|(_, param)| fits(param) == fitting) {
                part.push(param, self.grads[i].shallow_clone(), self.state.iter().map(|slot| &slot[i]));
            }
            part
        };
        (part(true), part(false))
    }

    pub(super) fn push<'a>(&mut self, param: &Tensor, grad: Tensor, state: impl Iterator<Item = &'a Tensor>) {
        self.params.push(param.shallow_clone());
        self.grads.push(grad);
        for (slot, tensor) in self.state.iter_mut().zip(state) {
            slot.push(tensor.shallow_clone());
        }
    }
}

/// What `ratio` makes of the norms of parameters and of others, both `[N]`: a scalar for each, and
/// 1 where a norm is 0.
pub(super) fn trust_ratios(
    params: &[Tensor],
    others: &[Tensor],
    ratio: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Vec<Tensor>, TrainError> {
    let norms = |tensors: &[Tensor]| Ok::<_, TrainError>(Tensor::f_stack(&foreach::norms(tensors)?, 0)?);
    let (of_params, of_others) = (norms(params)?, norms(others)?);
    let both = of_params.f_gt(0.0)?.f_logical_and(&of_others.f_gt(0.0)?)?;
    Ok(ratio(&of_params, &of_others)?.f_where_self(&both, &of_params.f_ones_like()?)?.f_unbind(0)?)
}
