//! What keeps values that are no numbers out of the weights, and the gradients of float16 within
//! its range.
use crate::distributed::World;
use crate::{Optimizer, TrainError};
use std::collections::BTreeMap;
use striate_graph::Network;
use striate_layers::ParamKind;
use striate_torch::optim::unscale;
use tch::{Device, Kind, Tensor};

/// What comes before the names of the scaler's state, which lies beside the optimizer's.
const SCALER: &str = "scaler.";
/// As in `torch.amp.GradScaler`: what losses are multiplied by at first, what by when no value was
/// lost for so many updates, and what by when one was.
const FIRST_SCALE: f64 = 65536.0;
const GROWTH: f64 = 2.0;
const INTERVAL: i64 = 2000;
const BACKOFF: f64 = 0.5;

/// Leaves out updates whose loss or gradients are no numbers. On a GPU nothing is read back from
/// the device.
#[derive(Debug)]
pub(crate) struct Guard {
    scaler: Option<Scaler>,
    /// Above 0 if a loss or a gradient since the last update is no number. Like all here a float32
    /// scalar.
    found: Tensor,
    /// The same of the last update.
    skipped: Tensor,
    /// Running statistics, and what they were at the last update.
    buffers: Vec<(Tensor, Tensor)>,
    /// Whether the gradients that there are were unscaled.
    unscaled: bool,
}

/// Multiplies losses, so that gradients of float16 do not vanish: `torch.amp.GradScaler`.
#[derive(Debug)]
struct Scaler {
    scale: Tensor,
    /// Updates since it changed, int32.
    growth_tracker: Tensor,
}

impl Guard {
    /// For a network that is trained; `scales` for one that computes in float16.
    pub(crate) fn new(network: &Network, scales: bool) -> Result<Self, TrainError> {
        let device = network.device();
        let zero = || Tensor::f_zeros([0_i64; 0], (Kind::Float, device));
        let scaler = || -> Result<_, TrainError> {
            let (scale, growth_tracker) = (zero()?.f_fill(FIRST_SCALE)?, Tensor::f_zeros([0_i64; 0], (Kind::Int, device))?);
            Ok(Scaler { scale, growth_tracker })
        };
        let buffers = network.parameters().filter(|param| param.kind != ParamKind::Trainable);
        let buffers =
            buffers.map(|param| -> Result<_, TrainError> { Ok((param.tensor.shallow_clone(), param.tensor.f_detach_copy()?)) });
        Ok(Self {
            scaler: scales.then(scaler).transpose()?,
            found: zero()?,
            skipped: zero()?,
            buffers: buffers.collect::<Result<_, _>>()?,
            unscaled: true,
        })
    }

    /// A backward pass begins.
    pub(crate) fn begin(&mut self) -> Result<(), TrainError> {
        if !self.unscaled {
            return Ok(());
        }
        self.unscaled = false;
        let _no_grad = striate_torch::no_grad();
        for (own, copy) in &mut self.buffers {
            copy.f_copy_(own)?;
        }
        Ok(())
    }

    /// What is to be derived in place of the loss.
    pub(crate) fn scaled(&mut self, loss: &Tensor) -> Result<Tensor, TrainError> {
        let _ = self.found.f_add_(&loss.f_detach()?.f_isfinite()?.f_logical_not()?.f_to_kind(Kind::Float)?)?;
        Ok(match &self.scaler {
            Some(scaler) => loss.f_mul(&scaler.scale)?,
            None => loss.shallow_clone(),
        })
    }

    /// Brings gradients to the loss's scale, once for an update, and looks at all their values.
    pub(crate) fn unscale(&mut self, optimizer: &Optimizer, world: &World) -> Result<(), TrainError> {
        if std::mem::replace(&mut self.unscaled, true) {
            return Ok(());
        }
        let inverse = match &self.scaler {
            Some(scaler) => scaler.scale.f_reciprocal()?,
            None => self.found.f_ones_like()?,
        };
        let mut by_device: Vec<(Device, Vec<Tensor>)> = Vec::new();
        for (_, grad) in optimizer.grads()? {
            match by_device.iter_mut().find(|(device, _)| *device == grad.device()) {
                Some((_, grads)) => grads.push(grad),
                None => by_device.push((grad.device(), vec![grad])),
            }
        }
        for (device, grads) in by_device {
            // The same tensor, where it is the same device.
            let found = self.found.f_to_device(device)?;
            unscale(&grads, &found, &inverse.f_to_device(device)?)?;
            if device != self.found.device() {
                self.found.f_copy_(&self.found.f_maximum(&found.f_to_device(self.found.device())?)?)?;
            }
        }
        if !world.is_one() {
            world.sum_in_place(&mut self.found)?;
        }
        Ok(())
    }

    /// Has the optimizer change the parameters, unless that would ruin them: then all is as before
    /// the backward passes.
    pub(crate) fn step(
        &mut self,
        optimizer: &mut Optimizer,
        step: impl FnOnce(&mut Optimizer) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let _no_grad = striate_torch::no_grad();
        // On the CPU it costs nothing to know.
        if self.found.device() != Device::Cpu {
            self.step_or_undo(optimizer, step)?;
        } else if f64::try_from(&self.found)? == 0.0 {
            step(optimizer)?;
        } else {
            self.undo(Vec::new())?;
        }
        if let Some(scaler) = &mut self.scaler {
            let tracker = &scaler.growth_tracker;
            let _ = scaler.scale.f_internal_amp_update_scale_(tracker, &self.found, GROWTH, BACKOFF, INTERVAL)?;
        }
        self.skipped.f_copy_(&self.found)?;
        let _ = self.found.f_zero_()?;
        Ok(())
    }

    fn step_or_undo(
        &mut self,
        optimizer: &mut Optimizer,
        step: impl FnOnce(&mut Optimizer) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let before = optimizer.tensors().map(|tensor| Ok((tensor.shallow_clone(), tensor.f_detach_copy()?)));
        let before = before.collect::<Result<_, TrainError>>()?;
        step(optimizer)?;
        self.undo(before)
    }

    /// Where a value was found to be no number, tensors become what they were, and running
    /// statistics too.
    fn undo(&mut self, before: Vec<(Tensor, Tensor)>) -> Result<(), TrainError> {
        let found = self.found.f_gt(0.0)?;
        let buffers = self.buffers.iter().map(|(own, copy)| (own.shallow_clone(), copy.shallow_clone()));
        for (mut own, copy) in before.into_iter().chain(buffers) {
            let kept = copy.f_where_self(&found.f_to_device(own.device())?, &own)?;
            own.f_copy_(&kept)?;
        }
        Ok(())
    }

    /// Whether the last update was left out: it waits for the device.
    pub(crate) fn skipped(&self) -> Result<bool, TrainError> {
        Ok(f64::try_from(&self.skipped)? > 0.0)
    }

    /// What going on takes: the scaler's tensors themselves, by name.
    pub(crate) fn state(&self) -> BTreeMap<String, Tensor> {
        let tensors = |scaler: &Scaler| [("scale", &scaler.scale), ("growth_tracker", &scaler.growth_tracker)].map(of_scaler);
        self.scaler.iter().flat_map(tensors).collect()
    }
}

fn of_scaler((name, tensor): (&str, &Tensor)) -> (String, Tensor) {
    (format!("{SCALER}{name}"), tensor.shallow_clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{AdamWConfig, Objective, OptimizerConfig, Step, StepOptions};
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{BatchNorm2d, Conv2d, Flatten, Linear, loss::Loss};

    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 4, 4]);
            let x = net.add("conv", Conv2d::same(2, 3), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(3), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    fn step(options: StepOptions) -> Step<Network> {
        let network = network();
        let adamw = OptimizerConfig::AdamW(AdamWConfig::default());
        let optimizer = Optimizer::new(adamw, network.trainable()).unwrap();
        Step::new(network, Objective::new(Loss::default(), 0.0), optimizer, options).unwrap()
    }

    fn batch(number: i64) -> (Tensor, Tensor) {
        striate_torch::manual_seed(number.unsigned_abs());
        (Tensor::randn([4, 1, 4, 4], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[0, 1, 2, number % 3]))
    }

    /// Parameters, running statistics and state.
    fn all(step: &Step<Network>) -> Vec<(String, Tensor)> {
        step.network().state().into_iter().chain(step.state()).map(|(name, tensor)| (name, tensor.copy())).collect()
    }

    fn train(step: &mut Step<Network>, numbers: &[i64]) {
        for number in numbers {
            let (images, targets) = batch(*number);
            step.run(&images, &targets, 0.01).unwrap();
            assert!(!step.skipped().unwrap());
        }
    }

    #[test]
    fn a_batch_that_would_ruin_the_weights_is_as_if_it_had_not_been() {
        let [mut whole, mut spoilt] = [(); 2].map(|()| step(StepOptions { skip: true, ..StepOptions::default() }));
        train(&mut whole, &[1, 2, 3]);
        train(&mut spoilt, &[1, 2]);
        let (images, targets) = batch(9);
        for bad in [f64::NAN, f64::INFINITY] {
            let output = spoilt.run(&(&images * bad), &targets, 0.01).unwrap();
            assert!(!output.loss.double_value(&[]).is_finite() && spoilt.skipped().unwrap());
        }
        train(&mut spoilt, &[3]);
        assert_eq!(all(&spoilt), all(&whole));
    }

    /// What happens on a GPU: the update is made, and undone without anybody knowing.
    #[test]
    fn an_update_can_be_undone() {
        for (found, is_undone) in [(0.0, false), (1.0, true)] {
            let network = network();
            let mut optimizer = Optimizer::new(OptimizerConfig::AdamW(AdamWConfig::default()), network.trainable()).unwrap();
            let mut guard = Guard::new(&network, false).unwrap();
            let before = |optimizer: &Optimizer| optimizer.tensors().map(Tensor::copy).collect::<Vec<_>>();
            let (start, mean) = (before(&optimizer), network.state()["bn.running_mean"].copy());
            let (images, _) = batch(1);
            network.forward(&images, striate_layers::Mode::Train).unwrap().logits().sum(Kind::Float).backward();
            let _ = guard.found.fill_(found);
            let _no_grad = striate_torch::no_grad();
            guard.step_or_undo(&mut optimizer, |optimizer| optimizer.step(0.1)).unwrap();
            let same = before(&optimizer) == start && network.state()["bn.running_mean"] == mean;
            assert_eq!(same, is_undone);
        }
    }

    /// A power of two changes no bit.
    #[test]
    fn scaled_losses_train_as_others() {
        let (mut plain, mut scaled) = (step(StepOptions::default()), step(StepOptions { scale: true, ..StepOptions::default() }));
        train(&mut plain, &[1, 2, 3]);
        train(&mut scaled, &[1, 2, 3]);
        assert_eq!(scaled.network().state(), plain.network().state());
        assert_eq!(scaled.state()["scaler.growth_tracker"], Tensor::from(3_i32));
    }

    /// As `torch.amp.GradScaler("cpu")`: half after an update that was left out, twice after 2000
    /// that were not.
    #[test]
    fn the_scale_follows_pytorchs_rule() {
        let mut step = step(StepOptions { scale: true, ..StepOptions::default() });
        let scale = |step: &Step<Network>| step.state()["scaler.scale"].double_value(&[]);
        assert_eq!(scale(&step), 65536.0);
        let (images, targets) = batch(1);
        for expected in [32768.0, 16384.0] {
            step.run(&(&images * f64::INFINITY), &targets, 0.01).unwrap();
            assert!(step.skipped().unwrap());
            assert_eq!(scale(&step), expected);
        }
        for number in 1..=2000 {
            step.update(0.01).unwrap();
            assert_eq!(scale(&step), if number == 2000 { 32768.0 } else { 16384.0 });
        }
        let mut other = self::step(StepOptions { scale: true, ..StepOptions::default() });
        other.load_state(&step.state()).unwrap();
        assert_eq!(scale(&other), 32768.0);
        let unscaled = self::step(StepOptions::default()).load_state(&step.state()).unwrap_err().to_string();
        assert!(unscaled.contains("it has scaler.growth_tracker, scaler.scale, which"), "{unscaled}");
    }

    /// In float16, the gradients of a loss of 1e-7 vanish unless it is scaled.
    #[test]
    fn small_gradients_of_float16_survive() {
        let weights = |scale: bool| {
            let mut network = network();
            network.set_autocast(Some(Kind::Half));
            let before = network.state()["fc.weight"].copy();
            let optimizer = Optimizer::new(OptimizerConfig::default(), network.trainable()).unwrap();
            let class_weights = Some(Tensor::from_slice(&[1e-7_f32; 3]));
            let loss = Loss::OneVsRest { label_smoothing: 0.0 };
            let objective = Objective { class_weights, ..Objective::new(loss, 0.0) };
            let mut step = Step::new(network, objective, optimizer, StepOptions { scale, ..StepOptions::default() }).unwrap();
            let (images, targets) = batch(1);
            step.run(&images, &targets, 1e5).unwrap();
            assert!(!step.skipped().unwrap());
            (&step.network().state()["fc.weight"] - before).abs().max().double_value(&[])
        };
        assert_eq!(weights(false), 0.0);
        assert!(weights(true) > 0.0);
    }
}
