//! What only LeNet-5 of 1998 has (LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition).
use crate::conv::output_numel;
use crate::shape::one;
use crate::{Fans, Forward, Init, Layer, LayerError, Mode, Pair, ParamSpec, Receptive, Shape};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Trainable subsampling, layers S2 and S4 (section II.B): the sum of each window that does not overlap its neighbours,
/// times one coefficient, plus one bias per channel. `[N, C, H, W]` to `[N, C, H / k, W / k]`.
///
/// Parameters: `weight` `[C]`, `bias` `[C]`, both starting in U(-2.4 / k², 2.4 / k²). The squashing function after it is a
/// layer of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subsampling2d {
    /// Height, width and step of the window.
    pub kernel_size: i64,
}

impl Subsampling2d {
    /// Sums windows of `kernel_size` x `kernel_size`.
    pub fn new(kernel_size: i64) -> Self {
        Self { kernel_size }
    }

    fn area(&self) -> i64 {
        self.kernel_size * self.kernel_size
    }
}

impl Layer for Subsampling2d {
    fn name(&self) -> &'static str {
        "Subsampling2d"
    }

    fn describe(&self) -> String {
        format!("{0}x{0}/{0}", self.kernel_size)
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        crate::AvgPool2d::new(self.kernel_size).output_shape(inputs)
    }

    fn params(&self, inputs: &[Shape]) -> Vec<ParamSpec> {
        let channels = inputs[0].dims()[0];
        let fans = Fans { fan_in: self.area(), fan_out: 1 };
        ["weight", "bias"].map(|name| ParamSpec::trainable(name, [channels], Init::LeCunUniform, fans)).to_vec()
    }

    fn connections(&self, inputs: &[Shape]) -> u64 {
        output_numel(self, inputs).saturating_mul((self.area() + 1).unsigned_abs())
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Window { kernel: self.kernel_size.into(), stride: self.kernel_size.into(), dilation: 1.into() }
    }
}

impl Forward for Subsampling2d {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let size = [self.kernel_size; 2];
        let sums = one(inputs)?.f_avg_pool2d(size, size, [0, 0], false, true, Some(1))?;
        let per_channel = |param: &Tensor| param.f_view([1, -1, 1, 1]);
        Ok(sums.f_mul(&per_channel(&params[0])?)?.f_add(&per_channel(&params[1])?)?)
    }
}

/// A convolution in which each output map sees only some of the input maps: layer C3 (Table I). `[N, C, H, W]` to
/// `[N, maps, H', W']`, stride 1, no padding.
///
/// Parameters: `weight` `[connections in the table, kernel height, kernel width]`, map by map in the order of the table,
/// and `bias` `[maps]`: no weight exists that is not connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseConv2d {
    /// For each output map, the input maps that it sees.
    pub table: Vec<Vec<i64>>,
    /// Height and width of the kernel.
    pub kernel_size: Pair,
}

/// The most weights of a sparse convolution, with those that are 0: LeNet-5's has 2,400.
const MAX_CONNECTIONS: i64 = 1 << 24;

impl SparseConv2d {
    /// A convolution of these connections.
    pub fn new(table: Vec<Vec<i64>>, kernel_size: impl Into<Pair>) -> Self {
        Self { table, kernel_size: kernel_size.into() }
    }

    /// C3 of LeNet-5: 16 maps over the 6 of S2, 60 connections of 5x5.
    pub fn lenet_c3() -> Self {
        let ring = |i: i64, offsets: &[i64]| offsets.iter().map(|offset| (i + offset) % 6).collect::<Vec<_>>();
        let mut table: Vec<Vec<i64>> = (0..6).map(|i| ring(i, &[0, 1, 2])).collect();
        table.extend((0..6).map(|i| ring(i, &[0, 1, 2, 3])));
        table.extend([vec![0, 1, 3, 4], vec![1, 2, 4, 5], vec![0, 2, 3, 5], (0..6).collect()]);
        Self::new(table, 5)
    }

    fn pairs(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        (0_i64..).zip(&self.table).flat_map(|(map, inputs)| inputs.iter().map(move |input| (map, *input)))
    }

    fn weights(&self) -> i64 {
        self.pairs().count() as i64
    }

    fn area(&self) -> i64 {
        self.kernel_size.0.iter().copied().fold(1, i64::saturating_mul)
    }

    fn maps(&self) -> i64 {
        self.table.len() as i64
    }

    /// The same convolution with every connection, for its shapes.
    fn dense(&self) -> crate::Conv2d {
        crate::Conv2d::new(self.maps(), self.kernel_size)
    }

    fn positions(&self, inputs: &[Shape]) -> u64 {
        output_numel(self, inputs) / self.maps().unsigned_abs()
    }
}

impl Layer for SparseConv2d {
    fn name(&self) -> &'static str {
        "SparseConv2d"
    }

    fn describe(&self) -> String {
        self.kernel_size.to_string()
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let [channels, _, _] = one(inputs)?.as_image()?;
        if let Some((map, input)) = self.pairs().find(|(_, input)| !(0..channels).contains(input)) {
            let reason = format!("connects map {map} with input {input} of {channels}");
            return Err(LayerError::option("table", reason));
        }
        if let Some(map) = self.table.iter().position(Vec::is_empty) {
            return Err(LayerError::option("table", format!("connects map {map} with nothing")));
        }
        let mut seen = HashSet::new();
        if let Some((map, input)) = self.pairs().find(|pair| !seen.insert(*pair)) {
            return Err(LayerError::option("table", format!("connects map {map} with input {input} twice")));
        }
        // It computes with all connections, most of them 0.
        let all = self.maps().saturating_mul(channels).saturating_mul(self.area());
        if all > MAX_CONNECTIONS {
            let reason = format!("has {all} weights with those that are 0, more than the {MAX_CONNECTIONS} that there may be");
            return Err(LayerError::option("table", reason));
        }
        self.dense().output_shape(inputs)
    }

    fn params(&self, _inputs: &[Shape]) -> Vec<ParamSpec> {
        // LeCun scales by the inputs of each unit, which differ between maps here: the mean stands for all.
        let fans = Fans {
            fan_in: self.weights().saturating_mul(self.area()) / self.maps(),
            fan_out: self.maps().saturating_mul(self.area()),
        };
        let weight = [self.weights(), self.kernel_size.0[0], self.kernel_size.0[1]];
        vec![
            ParamSpec::trainable("weight", weight, Init::LeCunUniform, fans),
            ParamSpec::trainable("bias", [self.maps()], Init::LeCunUniform, fans),
        ]
    }

    fn macs(&self, inputs: &[Shape]) -> u64 {
        self.positions(inputs).saturating_mul(self.weights().saturating_mul(self.area()).unsigned_abs())
    }

    fn connections(&self, inputs: &[Shape]) -> u64 {
        self.macs(inputs).saturating_add(output_numel(self, inputs))
    }

    fn receptive(&self, inputs: &[Shape]) -> Receptive {
        self.dense().receptive(inputs)
    }
}

impl Forward for SparseConv2d {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], mode: Mode) -> Result<Tensor, LayerError> {
        let input = one(inputs)?;
        let (weight, bias) = (&params[0], &params[1]);
        let channels = Shape::of_batch(input).as_image()?[0];
        let slots: Vec<i64> = self.pairs().map(|(map, input)| map * channels + input).collect();
        let slots = Tensor::f_from_slice(&slots)?.f_to_device(weight.device())?;
        let [height, width] = self.kernel_size.0;
        let dense = Tensor::f_zeros([self.maps() * channels, height, width], (weight.kind(), weight.device()))?;
        let dense = dense.f_index_copy(0, &slots, weight)?.f_view([self.maps(), channels, height, width])?;
        self.dense().forward(&[dense, bias.shallow_clone()], inputs, mode)
    }
}

/// Euclidean radial basis functions, LeNet-5's output layer (section II.B): `[N, F]` to `[N, classes]`, each value minus the
/// squared distance between the features and the class's code, so that the largest is the answer as with any logits.
///
/// Its one parameter is fixed: `weight` `[classes, F]`, the codes of ±1. Train it with [`crate::loss::rbf_loss`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RbfOutput {
    /// The number of classes: they have the first codes.
    classes: i64,
    codes: Arc<[f32]>,
    features: i64,
}

/// The ten digits as bitmaps of 7x12, drawn by hand: the paper's figure 3 shows the idea, and prints no numbers.
const DIGITS: [[&str; 12]; 10] = [
    [
        ".......", "..###..", ".##.##.", "##...##", "##...##", "##...##", "##...##", "##...##", "##...##", ".##.##.", "..###..",
        ".......",
    ],
    [
        ".......", "...##..", "..###..", ".####..", "...##..", "...##..", "...##..", "...##..", "...##..", "...##..", ".######",
        ".......",
    ],
    [
        ".......", ".#####.", "##...##", "##...##", ".....##", "....##.", "...##..", "..##...", ".##....", "##.....", "#######",
        ".......",
    ],
    [
        ".......", "#######", ".....##", "....##.", "...##..", "..####.", ".....##", ".....##", ".....##", "##...##", ".#####.",
        ".......",
    ],
    [
        ".......", "....##.", "...###.", "..####.", ".##.##.", "##..##.", "##..##.", "#######", "....##.", "....##.", "....##.",
        ".......",
    ],
    [
        ".......", "#######", "##.....", "##.....", "######.", "##...##", ".....##", ".....##", ".....##", "##...##", ".#####.",
        ".......",
    ],
    [
        ".......", "..####.", ".##....", "##.....", "##.....", "######.", "##...##", "##...##", "##...##", "##...##", ".#####.",
        ".......",
    ],
    [
        ".......", "#######", "##...##", ".....##", "....##.", "....##.", "...##..", "...##..", "..##...", "..##...", "..##...",
        ".......",
    ],
    [
        ".......", ".#####.", "##...##", "##...##", "##...##", ".#####.", "##...##", "##...##", "##...##", "##...##", ".#####.",
        ".......",
    ],
    [
        ".......", ".#####.", "##...##", "##...##", "##...##", "##...##", ".######", ".....##", ".....##", "....##.", ".####..",
        ".......",
    ],
];

impl RbfOutput {
    /// One code of `features` values for each class, all in one list. An error if they don't fill whole codes.
    pub fn new(codes: &[f32], features: i64) -> Result<Self, LayerError> {
        let len = codes.len() as i64;
        if features < 1 || len == 0 || len % features != 0 {
            return Err(LayerError::option(format!("{len} values"), format!("can't be cut into codes of {features} values")));
        }
        Ok(Self { classes: len / features, codes: codes.into(), features })
    }

    /// Bitmaps of digits, of 7x12 = 84 values: 1 where there is ink and -1 elsewhere. There are 10; an input is refused if
    /// more classes are asked for.
    pub fn digits(classes: i64) -> Self {
        let codes = DIGITS.iter().flatten().flat_map(|row| row.bytes()).map(ink).collect();
        Self { classes, codes, features: 84 }
    }
}

fn ink(pixel: u8) -> f32 {
    if pixel == b'#' { 1.0 } else { -1.0 }
}

impl Layer for RbfOutput {
    fn name(&self) -> &'static str {
        "RbfOutput"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        let input = one(inputs)?;
        if input.as_vector()? != self.features {
            return Err(LayerError::InputShape { expected: format!("[{}]", self.features), got: input.clone() });
        }
        let codes = self.codes.len() as i64 / self.features;
        if !(1..=codes).contains(&self.classes) {
            let reason = format!("but there are {codes} codes: use a linear output for more classes");
            return Err(LayerError::option(format!("classes = {}", self.classes), reason));
        }
        Ok(Shape::vector(self.classes))
    }

    fn params(&self, _inputs: &[Shape]) -> Vec<ParamSpec> {
        let codes = &self.codes[..(self.classes * self.features) as usize];
        vec![ParamSpec::buffer("weight", [self.classes, self.features], Init::Values(codes.into()))]
    }

    fn connections(&self, _inputs: &[Shape]) -> u64 {
        (self.classes * self.features).unsigned_abs()
    }

    fn receptive(&self, _inputs: &[Shape]) -> Receptive {
        Receptive::Global
    }
}

impl Forward for RbfOutput {
    fn forward(&self, params: &[Tensor], inputs: &[&Tensor], _mode: Mode) -> Result<Tensor, LayerError> {
        let difference = one(inputs)?.f_unsqueeze(1)?.f_sub(&params[0])?;
        let squares = difference.f_mul(&difference)?;
        Ok(squares.f_sum_dim_intlist([-1_i64].as_slice(), false, None::<Kind>)?.f_neg()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use striate_torch::Generator;
    use tch::Device;

    /// Table I of the paper, written out column by column.
    #[test]
    fn c3_sees_what_table_1_says() {
        let sets =
            ["012", "123", "234", "345", "450", "501", "0123", "1234", "2345", "3450", "4501", "5012", "0134", "1245", "0235"];
        let c3 = SparseConv2d::lenet_c3();
        for (map, set) in sets.iter().chain(&["012345"]).enumerate() {
            let inputs: Vec<i64> = set.bytes().map(|digit| i64::from(digit - b'0')).collect();
            assert_eq!(c3.table[map], inputs, "map {map}");
        }
        let inputs = [Shape::image(6, 14, 14)];
        assert_eq!(c3.params(&inputs).iter().map(ParamSpec::numel).sum::<i64>(), 1516);
        assert_eq!(c3.connections(&inputs), 151_600);
    }

    #[test]
    fn a_sparse_convolution_is_a_sum_over_its_table() {
        let sparse = SparseConv2d::new(vec![vec![2], vec![0, 1]], [1, 2]);
        let inputs = Tensor::arange(3 * 2 * 3, (Kind::Double, Device::Cpu)).view([1, 3, 2, 3]);
        let weight = Tensor::from_slice(&[1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0]).view([3, 1, 2]).set_requires_grad(true);
        let bias = Tensor::from_slice(&[0.5_f64, -0.5]);
        let out = sparse.forward(&[weight.shallow_clone(), bias], &[&inputs], Mode::Eval).unwrap();
        let x = |channel: i64, row: i64, column: i64| inputs.double_value(&[0, channel, row, column]);
        for row in 0..2 {
            for column in 0..2 {
                let first = x(2, row, column) + 2.0 * x(2, row, column + 1) + 0.5;
                let second =
                    3.0 * x(0, row, column) + 4.0 * x(0, row, column + 1) + 5.0 * x(1, row, column) + 6.0 * x(1, row, column + 1)
                        - 0.5;
                assert_eq!(out.double_value(&[0, 0, row, column]), first);
                assert_eq!(out.double_value(&[0, 1, row, column]), second);
            }
        }
        out.sum(Kind::Double).backward();
        let expected: f64 = (0..2).flat_map(|r| (0..2).map(move |c| (r, c))).map(|(r, c)| x(2, r, c)).sum();
        assert_eq!(weight.grad().double_value(&[0, 0, 0]), expected);
        let error = SparseConv2d::new(vec![vec![3]], 1).output_shape(&[Shape::image(3, 2, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "table connects map 0 with input 3 of 3");
        let error = SparseConv2d::new(vec![vec![1], vec![0, 2, 0]], 1).output_shape(&[Shape::image(3, 2, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "table connects map 1 with input 0 twice");
    }

    #[test]
    fn subsampling_scales_the_sum_of_its_window() {
        let layer = Subsampling2d::new(2);
        let input = Tensor::from_slice(&[1.0_f64, 2.0, 3.0, 4.0]).view([1, 1, 2, 2]);
        let params = [Tensor::from_slice(&[0.5_f64]), Tensor::from_slice(&[1.0_f64])];
        assert_eq!(layer.forward(&params, &[&input], Mode::Eval).unwrap().double_value(&[0, 0, 0, 0]), 6.0);
        assert_eq!(layer.connections(&[Shape::image(6, 28, 28)]), 5_880);
    }

    #[test]
    fn the_closest_code_wins_and_a_code_itself_is_at_distance_0() {
        let rbf = RbfOutput::digits(10);
        let params = crate::create_params(&rbf, &[Shape::vector(84)], Kind::Float, Some(&mut Generator::new(0))).unwrap();
        let codes = params[0].1.shallow_clone();
        assert_eq!(codes.size(), [10, 84]);
        let logits = rbf.forward(&[codes.shallow_clone()], &[&codes], Mode::Eval).unwrap();
        assert_eq!(logits.diag(0), Tensor::zeros([10], (Kind::Float, Device::Cpu)));
        assert_eq!(logits.argmax(1, false), Tensor::arange(10, (Kind::Int64, Device::Cpu)));
        // Two codes that differ in n pixels are at squared distance 4n.
        let differ = codes.get(0).ne_tensor(&codes.get(1)).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(logits.double_value(&[0, 1]), -4.0 * differ as f64);
        assert!(differ > 10, "codes must be far apart");
        assert!(RbfOutput::new(&[1.0; 5], 2).is_err());
        assert!(rbf.output_shape(&[Shape::vector(80)]).is_err());
        let error = RbfOutput::digits(26).output_shape(&[Shape::vector(84)]).unwrap_err().to_string();
        assert_eq!(error, "classes = 26 but there are 10 codes: use a linear output for more classes");
    }
}
