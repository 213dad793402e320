//! The landscape around trained weights, with and without shortcuts.
use super::degradation::{TRAINING, network};
use super::per_seed;
use crate::surface::{Surface, SurfaceOptions, loss_surface};
use crate::{Check, Claim, Finding, History, Interval, Lab, LabError, Setup, Table};
use serde::{Deserialize, Serialize};
use striate_layers::loss::Loss;
use striate_models::Shortcut;

pub(super) const CLAIM: Claim = Claim {
    name: "loss-surface",
    title: "Shortcuts smooth the loss surface",
    claim: "Around the weights of a deep network without shortcuts the loss is rugged and far from convex; with shortcuts it is a \
            smooth basin.",
    source: "Li et al. 2018, section 5 and figure 5",
    hypothesis: "On a filter-normalised random plane, going straight away from the trained weights in eight directions: the share \
                 of falls in all rises and falls of the logarithm of the loss, which counts as 10000 where it is more, is larger without \
                 shortcuts than with them.",
    refuted_if: "the interval of the difference lies on the other side",
    recipe: Setup::trained(
        "The networks of degradation with 44 layers (56 in a full run), each surface of 9x9 points (11x11) on the first 256 training \
         images.",
        TRAINING,
    ),
    seeds: [4, 8],
    minutes: [3.0, 12.0],
    run,
};

/// A loss above this, or none, counts as this: far beyond guessing, and still a number.
const CEILING: f64 = 1e4;

/// The loss around one network's weights.
#[derive(Debug, Serialize, Deserialize)]
struct Landscape {
    steps: Vec<f64>,
    losses: Vec<Vec<f64>>,
}

fn run(lab: &mut Lab) -> Result<Finding, LabError> {
    let training = lab.scale().pick(TRAINING);
    let (blocks, points) = lab.scale().pick([(7, 9), (9, 11)]);
    let mut table = Table::new(["network", "seed", "first step", "second step", "loss"]);
    let (mut falls, mut drawings) = (Vec::new(), Vec::new());
    for (kind, shortcut) in [("plain", Shortcut::None), ("residual", Shortcut::A)] {
        let what = format!("{kind}-{}", 6 * blocks + 2);
        let landscapes: Vec<Landscape> = per_seed(lab, |lab, seed| {
            let build = |input, classes| network(input, classes, blocks, shortcut);
            let (_, landscape): (History, _) =
                lab.train_and(&format!("{what}, {points}x{points} points"), &training, seed, build, |network, images| {
                    let options = SurfaceOptions { points, seed, ..SurfaceOptions::default() };
                    let Surface { steps, losses } = loss_surface(network, images, Loss::default(), options, &mut |_, _| {})?;
                    let finite = |loss: f64| if loss.is_finite() { loss.min(CEILING) } else { CEILING };
                    Ok(Landscape {
                        steps,
                        losses: losses.into_iter().map(|line| line.into_iter().map(finite).collect()).collect(),
                    })
                })?;
            Ok(landscape)
        })?;
        for (seed, Landscape { steps, losses }) in lab.seeds().into_iter().zip(&landscapes) {
            for (first, line) in steps.iter().zip(losses) {
                for (second, loss) in steps.iter().zip(line) {
                    table.push([what.clone(), seed.to_string(), first.to_string(), second.to_string(), loss.to_string()]);
                }
            }
        }
        falls.push(landscapes.iter().map(|landscape| share_of_falls(&landscape.losses)).collect::<Vec<_>>());
        if let Some(Landscape { steps, losses }) = landscapes.into_iter().next() {
            drawings.push(Surface { steps, losses }.to_svg(&format!("{what}, training loss"))?);
        }
    }
    let difference = Interval::of_differences(&falls[0], &falls[1]);
    let [plain, residual] = [0, 1].map(|at| Interval::of(&falls[at]));
    let checks = vec![Check::above("share of falls without shortcuts minus with them", difference, 0.0)];
    let remarks =
        format!("The share of falls is {plain} without shortcuts and {residual} with them. The figure shows the first seed.");
    Ok(Finding { checks, remarks, table, figure: side_by_side(&drawings) })
}

/// Of all rises and falls of the logarithm of the loss along the rays from the middle to the edges and corners, the share of falls.
fn share_of_falls(losses: &[Vec<f64>]) -> f64 {
    let middle = losses.len() / 2;
    let (mut rises, mut falls) = (0.0, 0.0);
    for (down, right) in [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)] {
        let at = |step: usize| {
            let place = |direction: isize| middle.wrapping_add_signed(direction * step.cast_signed());
            losses[place(down)][place(right)].max(f64::MIN_POSITIVE).ln()
        };
        for step in 0..middle {
            let change = at(step + 1) - at(step);
            if change > 0.0 { rises += change } else { falls -= change }
        }
    }
    if rises + falls > 0.0 { falls / (rises + falls) } else { 0.0 }
}

/// Two drawings as one.
fn side_by_side(drawings: &[String]) -> String {
    let placed = |(at, drawing): (usize, &String)| drawing.replacen("<svg ", &format!("<svg x=\"{}\" ", at * WIDTH), 1);
    let inside: String = drawings.iter().enumerate().map(placed).collect();
    let width = drawings.len() * WIDTH;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 550\" width=\"{width}\" height=\"550\">\n{inside}</svg>\n"
    )
}

/// The width of a drawing of a surface.
const WIDTH: usize = 640;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basin_has_no_falls_and_a_ridge_around_it_has() {
        let of = |loss: fn(i32) -> f64| -> Vec<Vec<f64>> {
            (-2..=2).map(|row: i32| (-2..=2).map(|column: i32| loss(row.abs().max(column.abs()))).collect()).collect()
        };
        assert_eq!(share_of_falls(&of(|from| f64::from(from + 1))), 0.0);
        // Four times as much and then half of it on every ray.
        assert!((share_of_falls(&of(|from| [1.0, 4.0, 2.0][from as usize])) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(share_of_falls(&of(|_| 1.0)), 0.0);
    }
}
