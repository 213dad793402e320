use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};
use std::str::FromStr;
use tch::{Kind, TchError, Tensor};

/// How the logits of a trained network become answers. A bundle keeps it, so that answers are those
/// that were measured at the end of the training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answering {
    /// Views of each picture whose logits are averaged.
    pub tta: Tta,
    /// Divides the logits before they become probabilities. It changes no order of classes.
    pub temperature: f64,
    /// When a picture is none of the classes. Only for classes that exclude each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
}

impl Default for Answering {
    /// One view, the network's own probabilities, and no picture is unknown.
    fn default() -> Self {
        Self { tta: Tta::Off, temperature: 1.0, unknown: None }
    }
}

impl Answering {
    /// Refuses values that cannot be, for a network with such an input (`[C, H, W]`).
    pub(crate) fn check(&self, input: &[i64], is_multi_label: bool) -> Result<(), String> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!("its temperature is {}, and not above 0", self.temperature));
        }
        if let Some(Unknown { energy, accepted }) = self.unknown {
            if !energy.is_finite() {
                return Err(format!("its pictures are unknown below an energy of {energy}, which is no number"));
            }
            if !(0.0..=1.0).contains(&accepted) {
                return Err(format!("it accepts {accepted} of the pictures, and no share from 0 to 1"));
            }
            if is_multi_label {
                return Err("it has a rule for unknown pictures, and its classes do not exclude each other".to_owned());
            }
        }
        self.tta.check(input).map_err(|reason| format!("its test-time augmentation {reason}"))
    }
}

/// When a picture is none of the classes: when the energy score of its logits is below a threshold.
///
/// The score is the logarithm of the sum of `exp(logit)` over all classes (Liu 2020,
/// <https://arxiv.org/abs/2010.03759>, there with the other sign). It is high if any class fits well.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// The threshold, for logits that no temperature divides.
    pub energy: f64,
    /// The share of the pictures that it was fitted on that lie at or above the threshold.
    pub accepted: f64,
}

impl Unknown {
    /// The energy score of an example with these logits.
    pub fn energy_of(logits: &[f64]) -> f64 {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // So that no exponential overflows; none of an infinite one is a number.
        let shift = if largest.is_finite() { largest } else { 0.0 };
        shift + logits.iter().map(|logit| (logit - shift).exp()).sum::<f64>().ln()
    }

    /// The energy score of each example, from logits `[N, classes]`.
    ///
    /// # Errors
    ///
    /// Logits of another shape.
    pub fn energies(logits: &Tensor) -> Result<Vec<f64>, TchError> {
        let (_, classes) = logits.size2()?;
        let values = Vec::<f64>::try_from(logits.f_to_kind(Kind::Double)?.f_contiguous()?.f_view(-1)?)?;
        Ok(values.chunks(usize::try_from(classes).unwrap_or(1).max(1)).map(Self::energy_of).collect())
    }

    /// Whether an example with these logits is none of the classes.
    pub fn is_unknown(&self, logits: &[f64]) -> bool {
        self.refuses(Self::energy_of(logits))
    }

    /// Whether an example with this energy score is none of the classes. One whose score is NaN is.
    pub fn refuses(&self, energy: f64) -> bool {
        energy.is_nan() || energy < self.energy
    }
}

/// Test-time augmentation: the views of a picture whose logits are averaged.
///
/// Written as `off`, `flip`, `flip-shift` (by one pixel) or `flip-shift=N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Tta {
    /// The picture as it is.
    #[default]
    Off,
    /// The picture, and its mirror image.
    Flip,
    /// Both, and both shifted by so many pixels to the upper left and to the lower right. The views
    /// that are not shifted count as much as all others together (as in airbench,
    /// <https://arxiv.org/abs/2404.00498>). Pixels from beyond the edge are reflected.
    FlipShift(u32),
}

impl Tta {
    /// How often the network runs on each picture.
    pub fn views(self) -> usize {
        match self {
            Self::Off => 1,
            Self::Flip => 2,
            Self::FlipShift(_) => 6,
        }
    }

    /// The mean logits over the views of a batch `[N, C, H, W]`, in the type that `forward` gives
    /// them in. `forward` is called for each view.
    ///
    /// # Errors
    ///
    /// Those of `forward`, and a shift that is no smaller than the picture.
    pub fn logits<E: From<TchError>>(
        self,
        images: &Tensor,
        mut forward: impl FnMut(&Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let both = |images: &Tensor, forward: &mut dyn FnMut(&Tensor) -> Result<Tensor, E>| {
            let (plain, mirrored) = (forward(images)?, forward(&images.f_flip([-1_i64].as_slice())?)?);
            mean(&plain, &mirrored)
        };
        match self {
            Self::Off => forward(images),
            Self::Flip => both(images, &mut forward),
            Self::FlipShift(pixels) => {
                let pixels = i64::from(pixels);
                let centre = both(images, &mut forward)?;
                let padded = images.f_reflection_pad2d([pixels; 4])?;
                let (_, _, height, width) = images.size4()?;
                let mut shifted = |by: i64| both(&padded.f_narrow(2, by, height)?.f_narrow(3, by, width)?, &mut forward);
                mean(&centre, &mean(&shifted(0)?, &shifted(2 * pixels)?)?)
            }
        }
    }

    /// Refuses inputs (`[C, H, W]`) that cannot be flipped or shifted so far.
    ///
    /// # Errors
    ///
    /// The end of a sentence that begins with the augmentation.
    pub fn check(self, input: &[i64]) -> Result<(), String> {
        match (self, input) {
            (Self::Off, _) | (Self::Flip, [_, _, _]) => Ok(()),
            (Self::FlipShift(pixels), &[_, height, width]) if i64::from(pixels) < height.min(width) => Ok(()),
            (Self::FlipShift(pixels), [_, _, _]) => {
                Err(format!("shifts pictures by {pixels}, and the network takes {input:?}: take less"))
            }
            _ => Err(format!("takes pictures, and the network takes {input:?}: take off")),
        }
    }
}

/// The mean of two batches of logits, in their type.
fn mean<E: From<TchError>>(one: &Tensor, other: &Tensor) -> Result<Tensor, E> {
    let sum = one.f_to_kind(Kind::Double)?.f_add(&other.f_to_kind(Kind::Double)?)?;
    Ok(sum.f_div_scalar(2.0)?.f_to_kind(one.kind())?)
}

impl Display for Tta {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Flip => f.write_str("flip"),
            Self::FlipShift(1) => f.write_str("flip-shift"),
            Self::FlipShift(pixels) => write!(f, "flip-shift={pixels}"),
        }
    }
}

impl FromStr for Tta {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pixels = |text: &str| text.strip_prefix("flip-shift=")?.parse().ok().filter(|pixels| *pixels > 0);
        match text {
            "off" => Ok(Self::Off),
            "flip" => Ok(Self::Flip),
            "flip-shift" => Ok(Self::FlipShift(1)),
            other => pixels(other).map(Self::FlipShift).ok_or_else(|| {
                format!("there is no test-time augmentation {other}: take off, flip, flip-shift or flip-shift=PIXELS")
            }),
        }
    }
}

impl TryFrom<String> for Tta {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Tta> for String {
    fn from(tta: Tta) -> Self {
        tta.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The upper left pixel and twice the lower right one: a network to which every view is another picture.
    fn corners(images: &Tensor) -> Result<Tensor, TchError> {
        let pixel = |row: i64, column: i64| images.select(3, column).select(2, row);
        Ok(pixel(0, 0) + pixel(-1, -1) * 2.0)
    }

    /// airbench's `infer_mirror_translate` with `corners` for the network, on `arange(12).view(1, 1, 3, 4)`:
    /// 0.25 (x + flip x) + 0.125 (sum over both crops of `F.pad(x, (1,) * 4, "reflect")` and their mirror images).
    #[test]
    fn views_count_as_in_airbench() {
        let images = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).view([1, 1, 3, 4]);
        let logits = |tta: Tta| corners_of(tta, &images);
        assert_eq!(logits(Tta::Off), 22.0);
        assert_eq!(logits(Tta::Flip), 20.5);
        assert_eq!(logits(Tta::FlipShift(1)), 18.5);
    }

    fn corners_of(tta: Tta, images: &Tensor) -> f64 {
        let mut views = 0;
        let logits = tta.logits(images, |view| {
            views += 1;
            assert_eq!(view.size(), images.size());
            corners(view)
        });
        assert_eq!(views, tta.views());
        logits.unwrap().double_value(&[0, 0])
    }

    #[test]
    fn augmentations_are_told_by_name() {
        for (text, tta) in
            [("off", Tta::Off), ("flip", Tta::Flip), ("flip-shift", Tta::FlipShift(1)), ("flip-shift=3", Tta::FlipShift(3))]
        {
            assert_eq!((text.parse(), tta.to_string().as_str()), (Ok(tta), text));
        }
        for wrong in ["flop", "flip-shift=0", "flip-shift=-1", "flip-shift="] {
            assert!(wrong.parse::<Tta>().unwrap_err().starts_with(&format!("there is no test-time augmentation {wrong}: ")));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let check = |answering: Answering| answering.check(&[1, 4, 8], false).unwrap_err();
        let plain = Answering::default();
        assert_eq!(plain.check(&[7], true), Ok(()));
        assert_eq!(check(Answering { temperature: 0.0, ..plain }), "its temperature is 0, and not above 0");
        assert!(check(Answering { temperature: f64::NAN, ..plain }).contains("NaN"));
        let unknown = |energy, accepted| Answering { unknown: Some(Unknown { energy, accepted }), ..plain };
        assert!(check(unknown(f64::INFINITY, 0.9)).contains("an energy of inf"));
        assert!(check(unknown(1.0, 1.5)).contains("it accepts 1.5"));
        assert!(unknown(1.0, 0.5).check(&[7], true).unwrap_err().contains("do not exclude each other"));
        let shifted = Answering { tta: Tta::FlipShift(4), ..plain };
        assert_eq!(check(shifted), "its test-time augmentation shifts pictures by 4, and the network takes [1, 4, 8]: take less");
        assert!(Answering { tta: Tta::Flip, ..plain }.check(&[7], false).unwrap_err().contains("takes [7]"));
    }

    #[test]
    fn nothing_is_known_of_what_is_no_number() {
        let logits = [[1.0, 2.0, 4.0], [-1.0; 3], [9.0, f64::NAN, 0.0], [f64::INFINITY, 0.0, 0.0], [f64::NEG_INFINITY; 3]];
        let energies = logits.map(|logits| Unknown::energy_of(&logits));
        let expected = [(1.0_f64.exp() + 2.0_f64.exp() + 4.0_f64.exp()).ln(), 3.0_f64.ln() - 1.0];
        assert!(energies.iter().zip(expected).all(|(energy, expected)| (energy - expected).abs() < 1e-12), "{energies:?}");
        assert!(energies[2].is_nan() && energies[3..] == [f64::INFINITY, f64::NEG_INFINITY], "{energies:?}");
        let unknown = |energy: f64| logits.map(|logits| Unknown { energy, accepted: 0.9 }.is_unknown(&logits));
        assert_eq!(unknown(energies[0]), [false, true, true, false, true]);
        assert_eq!(unknown(energies[0] + 1e-9), [true, true, true, false, true]);
    }

    /// PyTorch's `torch.logsumexp`, of logits too large for `exp`.
    #[test]
    fn large_logits_have_an_energy() {
        let logits = Tensor::from_slice(&[1000.0_f64, 999.5, -1000.0]);
        let expected = logits.logsumexp([0_i64].as_slice(), false).double_value(&[]);
        assert!((Unknown::energy_of(&[1000.0, 999.5, -1000.0]) - expected).abs() < 1e-12);
    }
}
