//! The steps of a plan, one run after the other.
use crate::step::Ready;
use std::time::Instant;
use striate_graph::GraphError;
use tch::{Device, Kind, Tensor};

/// The steps in their order, and which of them the outputs are.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) steps: Vec<Ready>,
    pub(crate) outputs: Vec<(String, usize)>,
}

impl Steps {
    /// The outputs in float32, for a batch of each input; shows `see` the value of each step, and when the step began.
    pub(crate) fn run<E: From<GraphError>>(
        &self,
        batches: &[&Tensor],
        mut see: impl FnMut(usize, &Tensor, Instant) -> Result<(), E>,
    ) -> Result<Vec<(String, Tensor)>, E> {
        let mut batches = batches.iter().copied();
        // A value that was given up, or a batch that there isn't, is a tensor without a type, which no step takes.
        let mut values: Vec<Tensor> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let start = Instant::now();
            let value = match step.is_input() {
                true => step.take_input(&batches.next().map_or_else(Tensor::new, Tensor::shallow_clone))?,
                false => step.run(&values)?,
            };
            see(index, &value, start)?;
            values.push(value);
            step.memory.last_uses.iter().for_each(|index| values[*index] = Tensor::new());
        }
        let output = |(name, step): &(String, usize)| Ok((name.clone(), self.steps[*step].in_float(&values[*step])?));
        Ok(self.outputs.iter().map(output).collect::<Result<_, GraphError>>()?)
    }

    /// [`run`](Self::run), which nobody watches.
    pub(crate) fn outputs(&self, batches: &[&Tensor]) -> Result<Vec<(String, Tensor)>, GraphError> {
        self.run(batches, |_, _, _| Ok(()))
    }

    /// Batches of zeros of these sizes, of the types and in the layouts that steps read.
    pub(crate) fn inputs(&self, sizes: &[Vec<i64>], device: Device) -> Result<Vec<Tensor>, GraphError> {
        let inputs = self.steps.iter().filter(|step| step.is_input());
        let input =
            |(step, size): (&Ready, &Vec<i64>)| step.take_input(&Tensor::f_zeros(size.as_slice(), (Kind::Float, device))?);
        inputs.zip(sizes).map(input).collect()
    }
}
