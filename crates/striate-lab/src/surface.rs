//! The loss around trained weights, on a plane through them.
use crate::LabError;
use crate::chart::{colour, head, legend, text};
use crate::page::number;
use serde::Serialize;
use std::fmt::Write;
use striate_datasets::Loader;
use striate_graph::Network;
use striate_layers::{ParamKind, loss::Loss};
use striate_torch::{Generator, derive_seed};
use striate_train::evaluate;
use tch::Tensor;

/// What sets the seeds of directions apart from others that are derived from the same seed.
const DIRECTION_SEEDS: u64 = 0x4449_5245;
/// More points on a side than anybody waits for.
const MOST_POINTS: usize = 501;
/// Lines of equal loss in the drawing.
const CONTOURS: i32 = 9;

/// The plane and its grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceOptions {
    /// Points on each side; an odd number has the weights themselves in the middle.
    pub points: usize,
    /// How far the grid reaches in each direction from the weights: at 1, each filter is moved by as much as it is long.
    pub reach: f64,
    /// What the directions are drawn from.
    pub seed: u64,
}

impl Default for SurfaceOptions {
    /// 15 x 15 points as far as the filters are long.
    fn default() -> Self {
        Self { points: 15, reach: 1.0, seed: 0 }
    }
}

/// The loss on a grid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Surface {
    /// The steps along either direction, from least to largest.
    pub steps: Vec<f64>,
    /// For each step along the first direction, the mean loss at each step along the second; infinite or NaN where the network
    /// overflowed.
    pub losses: Vec<Vec<f64>>,
}

/// A random direction in the space of a network's parameters, normalised filter by filter (Li 2018, arXiv:1712.09913, section 4): a
/// tensor for each trained parameter in the order of [`Network::parameters`]. Each filter of a convolution, and each row of a linear
/// layer, is as long as that of the network. Biases and batch norm's weights, which have no filters, stay where they are.
///
/// # Errors
///
/// libtorch's.
pub fn filter_normalised_direction(network: &Network, seed: u64) -> Result<Vec<Tensor>, LabError> {
    let _no_grad = striate_torch::no_grad();
    let mut generator = Generator::new(derive_seed(seed, &[DIRECTION_SEEDS]));
    let mut directions = Vec::new();
    for parameter in trained(network) {
        let mut direction = Tensor::f_zeros(parameter.size(), (parameter.kind(), tch::Device::Cpu))?;
        if parameter.dim() > 1 {
            generator.normal(&mut direction, 0.0, 1.0)?;
            let length = |tensor: &Tensor| -> Result<Tensor, LabError> {
                let mut shape = vec![1; tensor.dim()];
                shape[0] = -1;
                let squares = tensor.f_square()?.f_flatten(1, -1)?.f_sum_dim_intlist([1_i64].as_slice(), false, tensor.kind())?;
                Ok(squares.f_sqrt()?.f_view(shape.as_slice())?)
            };
            let own = length(&direction)?.f_clamp_min(f64::MIN_POSITIVE)?;
            direction = direction.f_mul(&length(&parameter.f_to_device(tch::Device::Cpu)?)?.f_div(&own)?)?;
        }
        directions.push(direction.f_to_device(parameter.device())?);
    }
    Ok(directions)
}

fn trained(network: &Network) -> Vec<Tensor> {
    network.parameters().filter(|parameter| parameter.kind == ParamKind::Trainable).map(|parameter| parameter.tensor).collect()
}

/// The mean loss over a loader's examples at each point of a grid that two random directions span around the network's weights,
/// in evaluation. Batch norm's statistics stay those of the training. `on_point` is told how many points are done, of how many. The
/// network has its weights again at the end.
///
/// # Errors
///
/// A grid that cannot be, or a loader that does not fit the network.
pub fn loss_surface(
    network: &Network,
    loader: &Loader,
    loss: Loss,
    options: SurfaceOptions,
    on_point: &mut dyn FnMut(usize, usize),
) -> Result<Surface, LabError> {
    let SurfaceOptions { points, reach, seed } = options;
    if !(2..=MOST_POINTS).contains(&points) {
        return Err(LabError::Usage(format!("points = {points} must be from 2 to {MOST_POINTS}")));
    }
    if !(reach.is_finite() && reach > 0.0) {
        return Err(LabError::Usage(format!("reach = {reach} must be above 0")));
    }
    let plane = Plane {
        parameters: trained(network),
        centre: trained(network)
            .iter()
            .map(|parameter| Ok(parameter.f_detach()?.f_mul_scalar(1.0)?))
            .collect::<Result<_, LabError>>()?,
        first: filter_normalised_direction(network, derive_seed(seed, &[1]))?,
        second: filter_normalised_direction(network, derive_seed(seed, &[2]))?,
    };
    let step = |index: usize| reach * (2.0 * index as f64 / (points - 1) as f64 - 1.0);
    let steps: Vec<f64> = (0..points).map(step).collect();
    let mut losses = Vec::with_capacity(points);
    for (row, alpha) in steps.iter().enumerate() {
        let mut line = Vec::with_capacity(points);
        for (column, beta) in steps.iter().enumerate() {
            plane.go_to(*alpha, *beta)?;
            line.push(evaluate(network, loader, loss)?.loss);
            on_point(row * points + column + 1, points * points);
        }
        losses.push(line);
    }
    Ok(Surface { steps, losses })
}

/// A plane through a network's weights. It brings them back when it goes.
struct Plane {
    parameters: Vec<Tensor>,
    centre: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl Plane {
    fn go_to(&self, alpha: f64, beta: f64) -> Result<(), LabError> {
        let _no_grad = striate_torch::no_grad();
        for (index, parameter) in self.parameters.iter().enumerate() {
            let moved = self.first[index].f_mul_scalar(alpha)?.f_add(&self.second[index].f_mul_scalar(beta)?)?;
            parameter.shallow_clone().f_copy_(&moved.f_add(&self.centre[index])?)?;
        }
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _no_grad = striate_torch::no_grad();
        for (parameter, centre) in self.parameters.iter().zip(&self.centre) {
            // Sizes and types are equal: nothing is left that could fail.
            let _ = parameter.shallow_clone().f_copy_(centre);
        }
    }
}

/// The drawing's plot in pixels, and its place.
const SIDE: f64 = 440.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;

impl Surface {
    /// The grid as CSV, one line a point: `alpha,beta,loss`.
    pub fn to_csv(&self) -> String {
        let mut csv = "alpha,beta,loss\n".to_owned();
        for (alpha, line) in self.steps.iter().zip(&self.losses) {
            for (beta, loss) in self.steps.iter().zip(line) {
                let _ = writeln!(csv, "{alpha},{beta},{loss}");
            }
        }
        csv
    }

    /// The least and the largest finite loss; none if no loss is finite.
    fn range(&self) -> Option<(f64, f64)> {
        let finite = self.losses.iter().flatten().copied().filter(|loss| loss.is_finite());
        finite.fold(None, |range, loss| {
            let (least, largest) = range.unwrap_or((loss, loss));
            Some((least.min(loss), largest.max(loss)))
        })
    }

    /// A heat map on a logarithmic scale with lines of equal loss; points without a loss are grey.
    ///
    /// # Errors
    ///
    /// No point has a finite loss.
    pub fn to_svg(&self, title: &str) -> Result<String, LabError> {
        let Some((least, largest)) = self.range() else {
            return Err(LabError::Figure("the loss is infinite everywhere on the plane".to_owned()));
        };
        // A loss of 0 has no logarithm.
        let floor = (largest * 1e-6).max(f64::MIN_POSITIVE);
        let log = |loss: f64| loss.max(floor).ln();
        let (low, high) = (log(least), log(largest));
        let share = |loss: f64| {
            if !loss.is_finite() {
                f64::NAN
            } else if high > low {
                (log(loss) - low) / (high - low)
            } else {
                0.0
            }
        };
        let loss_at = |share: f64| (low + share * (high - low)).exp();
        let mut svg = head(LEFT + SIDE + 120.0, TOP + SIDE + 60.0, title);
        text(&mut svg, [LEFT + SIDE / 2.0, 24.0], "middle", title);
        let points = self.steps.len();
        let cell = SIDE / points as f64;
        for (row, line) in self.losses.iter().enumerate() {
            for (column, loss) in line.iter().enumerate() {
                let (x, y) = (LEFT + column as f64 * cell, TOP + (points - 1 - row) as f64 * cell);
                let (size, fill) = (cell + 0.3, colour(share(*loss)));
                let _ =
                    writeln!(svg, "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{size:.2}\" height=\"{size:.2}\" fill=\"{fill}\"/>");
            }
        }
        let shares: Vec<Vec<f64>> = self.losses.iter().map(|line| line.iter().map(|loss| share(*loss)).collect()).collect();
        let place = |row: f64, column: f64| (LEFT + (column + 0.5) * cell, TOP + SIDE - (row + 0.5) * cell);
        for level in 1..=CONTOURS {
            let path: String = contour(&shares, f64::from(level) / f64::from(CONTOURS + 1))
                .into_iter()
                .map(|[from, to]| {
                    let ((x1, y1), (x2, y2)) = (place(from.0, from.1), place(to.0, to.1));
                    format!("M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}")
                })
                .collect();
            let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"#fff\" stroke-opacity=\"0.8\"/>");
        }
        let (x, y) = (LEFT + SIDE / 2.0, TOP + SIDE / 2.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{0} {y}H{1}M{x} {2}V{3}\" stroke=\"#fff\" stroke-width=\"2\"/>",
            x - 6.0,
            x + 6.0,
            y - 6.0,
            y + 6.0
        );
        for (share, step) in [(0.0, self.steps.first()), (0.5, None), (1.0, self.steps.last())] {
            let label = number(step.copied().unwrap_or_default());
            let at = 0.5 * cell + share * (SIDE - cell);
            text(&mut svg, [LEFT + at, TOP + SIDE + 14.0], "middle", &label);
            text(&mut svg, [LEFT - 8.0, TOP + SIDE - at], "end", &label);
        }
        text(&mut svg, [LEFT + SIDE / 2.0, TOP + SIDE + 38.0], "middle", "second direction (the cross: the trained weights)");
        let _ = writeln!(svg, "<g transform=\"translate(18 {}) rotate(-90)\">", TOP + SIDE / 2.0);
        text(&mut svg, [0.0, 0.0], "middle", "first direction");
        svg += "</g>\n";
        let marks: Vec<(f64, f64)> = [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().map(|share| (share, loss_at(share))).collect();
        text(&mut svg, [LEFT + SIDE + 20.0, TOP - 14.0], "start", "loss");
        legend(&mut svg, [LEFT + SIDE + 20.0, TOP], SIDE, &marks, "");
        Ok(svg + "</svg>\n")
    }
}

/// A point of a drawing: row and column.
type Point = (f64, f64);

/// Line segments where linearly interpolated values pass `level` (marching squares); squares with a NaN have none.
fn contour(values: &[Vec<f64>], level: f64) -> Vec<[Point; 2]> {
    let mut segments = Vec::new();
    for row in 0..values.len().saturating_sub(1) {
        for column in 0..values[row].len().saturating_sub(1) {
            let corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)];
            if corners.iter().any(|(row, column)| values[*row][*column].is_nan()) {
                continue;
            }
            let crossings: Vec<Point> = (0..4)
                .filter_map(|side| {
                    let ((r1, c1), (r2, c2)) = (corners[side], corners[(side + 1) % 4]);
                    let (from, to) = (values[r1][c1], values[r2][c2]);
                    let share = (level - from) / (to - from);
                    ((from < level) != (to < level))
                        .then_some((r1 as f64 + share * (r2 as f64 - r1 as f64), c1 as f64 + share * (c2 as f64 - c1 as f64)))
                })
                .collect();
            segments.extend(crossings.chunks_exact(2).map(|pair| [pair[0], pair[1]]));
        }
    }
    segments
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_datasets::{Fit, LoaderOptions, Normalise, Preprocess, digits};
    use striate_graph::{Graph, InitOptions};
    use striate_layers::{Activation, BatchNorm2d, Conv2d, Flatten, Linear};
    use tch::Kind;

    fn network() -> Network {
        let graph = Graph::build(|net| {
            let x = net.input([1, 8, 8]);
            let x = net.add("conv", Conv2d::new(4, 3), x)?;
            let x = net.add("bn", BatchNorm2d::new(), x)?;
            let x = net.add("relu", Activation::Relu, x)?;
            let x = net.add("flatten", Flatten, x)?;
            let x = net.add("fc", Linear::new(10), x)?;
            net.output("logits", x)
        });
        Network::new(graph.unwrap(), &InitOptions::default()).unwrap()
    }

    #[test]
    fn each_filter_of_a_direction_is_as_long_as_the_networks() {
        let network = network();
        let direction = filter_normalised_direction(&network, 5).unwrap();
        let names: Vec<String> = network.parameters().filter(|p| p.kind == ParamKind::Trainable).map(|p| p.name).collect();
        assert_eq!(names, ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]);
        for ((name, direction), parameter) in names.iter().zip(&direction).zip(trained(&network)) {
            if parameter.dim() == 1 {
                assert_eq!(direction.abs().max().double_value(&[]), 0.0, "{name}");
                continue;
            }
            for filter in 0..parameter.size()[0] {
                let (ours, theirs) = (direction.get(filter).norm(), parameter.get(filter).norm());
                assert!((ours.double_value(&[]) / theirs.double_value(&[]) - 1.0).abs() < 1e-5, "{name} {filter}");
            }
        }
        let again = filter_normalised_direction(&network, 5).unwrap();
        let other = filter_normalised_direction(&network, 6).unwrap();
        assert!(direction[0] == again[0] && direction[0] != other[0]);
    }

    #[test]
    fn the_surface_is_the_loss_at_moved_weights() {
        let data = digits().unwrap().test.range(0..50).unwrap();
        let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::identity()).unwrap();
        let loader = Loader::new(&data, preprocess, LoaderOptions::eval(25)).unwrap();
        let network = network();
        let before: Vec<Tensor> = trained(&network).iter().map(|p| p.detach().copy()).collect();
        let options = SurfaceOptions { points: 3, reach: 0.5, seed: 4 };
        let mut told = Vec::new();
        let surface = loss_surface(&network, &loader, Loss::default(), options, &mut |done, all| told.push((done, all))).unwrap();
        assert_eq!((surface.steps.as_slice(), told.last(), told.len()), (&[-0.5, 0.0, 0.5][..], Some(&(9, 9)), 9));
        assert!(trained(&network).iter().zip(&before).all(|(after, before)| after == before), "the weights are back");
        let loss = || evaluate(&network, &loader, Loss::default()).unwrap().loss;
        assert_eq!(surface.losses[1][1], loss());
        let (first, second) = (derive_seed(4, &[1]), derive_seed(4, &[2]));
        let (first, second) =
            (filter_normalised_direction(&network, first).unwrap(), filter_normalised_direction(&network, second).unwrap());
        tch::no_grad(|| {
            for ((mut parameter, first), second) in trained(&network).into_iter().zip(&first).zip(&second) {
                let _ = parameter.g_add_(&(first * 0.5 - second * 0.5));
            }
        });
        assert!((surface.losses[2][0] - loss()).abs() < 1e-5, "{} {}", surface.losses[2][0], loss());
        assert_ne!(surface.losses[2][0], surface.losses[0][2]);
        assert_eq!(surface.to_csv().lines().count(), 10);
        assert!(surface.to_csv().starts_with("alpha,beta,loss\n-0.5,-0.5,"));
        let kind = before[0].kind();
        assert_eq!(kind, Kind::Float);
    }

    #[test]
    fn a_grid_that_cannot_be_is_refused() {
        let data = digits().unwrap().test.range(0..5).unwrap();
        let preprocess = Preprocess::new([1, 8, 8], [1, 8, 8], Fit::Resize, Normalise::identity()).unwrap();
        let loader = Loader::new(&data, preprocess, LoaderOptions::eval(25)).unwrap();
        let told = |points, reach| {
            let options = SurfaceOptions { points, reach, seed: 0 };
            loss_surface(&network(), &loader, Loss::default(), options, &mut |_, _| {}).unwrap_err().to_string()
        };
        assert_eq!(told(1, 1.0), "points = 1 must be from 2 to 501");
        assert_eq!(told(3, f64::NAN), "reach = NaN must be above 0");
    }

    #[test]
    fn contours_pass_between_lower_and_higher_points() {
        let values = [vec![0.0, 1.0], vec![0.0, 1.0]];
        assert_eq!(contour(&values, 0.25), [[(0.0, 0.25), (1.0, 0.25)]]);
        assert!(contour(&values, 2.0).is_empty() && contour(&[vec![0.0, f64::NAN], vec![0.0, 1.0]], 0.5).is_empty());
        let saddle = [vec![1.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(contour(&saddle, 0.5).len(), 2);
    }

    #[test]
    fn infinite_losses_are_grey_and_no_loss_is_an_error() {
        let surface = Surface { steps: vec![-1.0, 1.0], losses: vec![vec![1.0, f64::INFINITY], vec![f64::NAN, 0.0]] };
        let svg = surface.to_svg("a < b").unwrap();
        assert!(svg.contains("#808080") && svg.contains("a &lt; b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let none = Surface { steps: vec![-1.0, 1.0], losses: vec![vec![f64::NAN; 2]; 2] };
        assert!(none.to_svg("x").unwrap_err().to_string().contains("infinite everywhere"));
    }
}
