//! Every kernel that computes with floating point, on shapes drawn at random, against float64; and with values that are no finite numbers.
#![allow(clippy::unwrap_used)]
use crate::conv;
use crate::norm::{self, After, BatchNorm};
use crate::onednn::{Geometry, Sum};
use crate::pixels::{self, Window};
use crate::winograd::{self, LANES, TILE};
use crate::{MemoryFormat, manual_seed, pointwise, to_memory_format};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
/// Of a sum of rounded products, for each of them.
const ROUNDING: f64 = 1.2e-7;
/// Of the largest value, by Winograd's algorithm.
const WINOGRAD: f64 = 5e-5;

fn random(size: &[i64]) -> Tensor {
    Tensor::randn(size, FLOAT)
}

/// Channels-last or not, whole or some channels of wider pixels.
fn images(size: [i64; 4], layout: usize) -> Tensor {
    let [batch, channels, height, width] = size;
    let last = |images: Tensor| to_memory_format(&images, MemoryFormat::ChannelsLast).unwrap();
    match layout {
        0 => random(&size),
        1 => last(random(&size)),
        _ => last(random(&[batch, channels + 5, height, width])).narrow(1, 3, channels),
    }
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.detach().to_kind(Kind::Double)
}

fn conv64(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: &Geometry) -> Tensor {
    let Geometry { padding, stride, dilation, groups } = geometry;
    x.conv2d(weight, bias, stride, padding, dilation, *groups)
}

/// At stride 1 with this padding.
fn still(padding: [i64; 2]) -> Geometry {
    Geometry { padding, stride: [1, 1], dilation: [1, 1], groups: 1 }
}

/// Where both are numbers, within the bound; elsewhere the same infinity, or not a number in both.
fn check(got: &Tensor, expected: &Tensor, bound: &Tensor) -> Result<(), TestCaseError> {
    let got = double(got);
    prop_assert_eq!(got.size(), expected.size());
    let same = got.isnan().logical_and(&expected.isnan()).logical_or(&got.eq_tensor(expected));
    let near = (&got - expected).abs().le_tensor(&(bound + 1e-30)).logical_and(&expected.isfinite());
    let wrong = same.logical_or(&near).logical_not().sum(Kind::Int64).int64_value(&[]);
    prop_assert_eq!(wrong, 0, "of {:?}", expected.size());
    Ok(())
}

/// Output and gradients of what float64 computes from leaves, for a gradient of the output.
fn gradients(leaves: &[&Tensor], upstream: &Tensor, compute: impl Fn(&[Tensor]) -> Tensor) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = leaves.iter().map(|leaf| leaf.set_requires_grad(true)).collect();
    let y = compute(&leaves);
    (&y * upstream).sum(Kind::Double).backward();
    [y.detach()].into_iter().chain(leaves.iter().map(Tensor::grad)).collect()
}

/// What is no finite number, and what is almost zero.
fn odd() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), Just(Some(f64::NAN)), Just(Some(f64::INFINITY)), Just(Some(f64::NEG_INFINITY)), Just(Some(1e-41))]
}

/// Writes a value to a place that the share tells.
fn place(x: &Tensor, share: f64, value: Option<f64>) {
    if let Some(value) = value.filter(|_| x.numel() > 0) {
        let mut rest = (share * x.numel() as f64) as i64;
        let mut at = x.shallow_clone();
        for size in x.size().into_iter().rev() {
            at = at.select(at.dim() as i64 - 1, rest % size);
            rest /= size;
        }
        let _ = at.fill_(value);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn products_of_windows_and_weights(
        seed in any::<u64>(), size in [0_i64..4, 1..140, 1..10, 1..10], out in 1_i64..150, stride in [1_i64..4, 1..4],
        kernel in prop_oneof![Just([1_i64, 1]), [1_i64..6, 1..6]], padding in [0_i64..3, 0..3], layout in 0..3_usize, added in any::<bool>(), relu in any::<bool>(), value in odd(), share in 0.0..1.0,
    ) {
        prop_assume!((0..2).all(|axis| size[axis + 2] + 2 * padding[axis] >= kernel[axis]));
        manual_seed(seed);
        let (x, weight, bias) = (images(size, layout), random(&[out, size[1], kernel[0], kernel[1]]), random(&[out]));
        place(&x, share, value);
        let geometry = Geometry { stride, ..still(padding) };
        let plain = conv64(&double(&x), &double(&weight), Some(&double(&bias)), &geometry);
        let other = added.then(|| images(plain.size().try_into().unwrap(), 1));
        let sum = other.as_ref().map_or_else(|| plain.shallow_clone(), |other| &plain + double(other));
        let magnitude = conv64(&double(&x).abs(), &double(&weight).abs(), Some(&double(&bias).abs()), &geometry) + 10.0;
        let packed = pointwise::Weight::new(&weight, Some(&bias)).unwrap();
        let got = packed.conv(&x, stride, padding, other.as_ref(), Sum { relu, in_place: false }).unwrap();
        let expected = if relu { sum.relu() } else { sum };
        check(&got, &expected, &(magnitude * ROUNDING * (size[1] * kernel[0] * kernel[1] + 2)))?;
    }

    #[test]
    fn windows_and_their_gradients(
        seed in any::<u64>(), size in [0_i64..3, 1..5, 1..14, 1..14], out in 1_i64..6, kernel in [1_i64..4, 1..4],
        stride in [1_i64..4, 1..4], padding in [0_i64..3, 0..3], layout in 0..3_usize, threads in 1..5_usize,
    ) {
        manual_seed(seed);
        crate::set_num_threads(threads);
        let fits = (0..2).all(|axis| size[axis + 2] + 2 * padding[axis] >= kernel[axis]);
        prop_assume!(fits);
        let (channels, out) = (size[1] * LANES, out * LANES);
        let x = images([size[0], channels, size[2], size[3]], layout).set_requires_grad(true);
        let weight = random(&[out, channels, kernel[0], kernel[1]]).set_requires_grad(true);
        let bias = random(&[out]).set_requires_grad(true);
        let geometry = Geometry { stride, ..still(padding) };
        let y = conv::conv(&x, &weight, Some(&bias), &geometry).unwrap();
        let upstream = random(&y.size());
        (&y * &upstream).sum(Kind::Float).backward();
        let of = |change: fn(&Tensor) -> Tensor| {
            let [x, weight, bias] = [&x, &weight, &bias].map(|tensor| change(&double(tensor)));
            gradients(&[&x, &weight, &bias], &change(&double(&upstream)), |leaves| {
                conv64(&leaves[0], &leaves[1], Some(&leaves[2]), &geometry)
            })
        };
        let (expected, magnitudes) = (of(Tensor::shallow_clone), of(Tensor::abs));
        let terms = [channels * kernel[0] * kernel[1], out * kernel[0] * kernel[1], upstream.numel() as i64, upstream.numel() as i64];
        for (((got, expected), magnitude), terms) in
            [y, x.grad(), weight.grad(), bias.grad()].iter().zip(&expected).zip(&magnitudes).zip(terms)
        {
            check(got, expected, &(magnitude * ROUNDING * (terms + 2)))?;
        }
    }

    #[test]
    fn winograds_and_their_gradients(
        seed in any::<u64>(), size in [0_i64..3, 1..7, 1..24, 1..24], out in 1_i64..7, padding in [0_i64..3, 0..3],
        layout in 0..3_usize, threads in 1..5_usize,
    ) {
        manual_seed(seed);
        crate::set_num_threads(threads);
        prop_assume!((0..2).all(|axis| size[axis + 2] + 2 * padding[axis] >= 3));
        let (channels, out) = (size[1] * LANES, out * LANES);
        let x = images([size[0], channels, size[2], size[3]], layout).set_requires_grad(true);
        let (weight, bias) = (random(&[out, channels, 3, 3]).set_requires_grad(true), random(&[out]).set_requires_grad(true));
        let y = winograd::conv(&x, &weight, Some(&bias), padding).unwrap();
        let packed = winograd::Weight::new(&weight.detach()).unwrap();
        let plan = packed.conv(&x.detach(), Some(&bias.detach()), padding, None, Sum { relu: true, in_place: false }).unwrap();
        let upstream = random(&y.size());
        (&y * &upstream).sum(Kind::Float).backward();
        let leaves = [double(&x), double(&weight), double(&bias)];
        let mut expected = gradients(&leaves.each_ref(), &double(&upstream), |leaves| {
            conv64(&leaves[0], &leaves[1], Some(&leaves[2]), &still(padding))
        });
        expected.push(expected[0].relu());
        for (got, expected) in [y, x.grad(), weight.grad(), bias.grad(), plan].iter().zip(&expected) {
            if expected.numel() > 0 {
                check(got, expected, &(expected.abs().max() * WINOGRAD))?;
            }
        }
    }

    /// What is no number reaches every output that reads it, and no others than those of its tiles.
    #[test]
    fn what_is_no_number_stays_within_winograds_tiles(
        seed in any::<u64>(), height in 3_i64..20, width in 3_i64..20, share in 0.0..1.0,
        value in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ) {
        manual_seed(seed);
        let (x, weight) = (images([2, LANES, height, width], 1), random(&[LANES, LANES, 3, 3]));
        place(&x, share, Some(value));
        let packed = winograd::Weight::new(&weight).unwrap();
        let got = double(&packed.conv(&x, None, [1, 1], None, Sum { relu: false, in_place: false }).unwrap());
        let expected = conv64(&double(&x), &double(&weight), None, &still([1, 1]));
        let (spoilt, should_be) = (got.isfinite().logical_not(), expected.isfinite().logical_not());
        prop_assert_eq!(should_be.logical_and(&spoilt.logical_not()).sum(Kind::Int64).int64_value(&[]), 0);
        // A tile reads one pixel more than it has on each side.
        let reach = 2 * TILE - 1;
        let near = should_be.to_kind(Kind::Float).max_pool2d([2 * reach + 1; 2], [1, 1], [reach; 2], [1, 1], false);
        let far = spoilt.logical_and(&near.eq(0.0));
        prop_assert_eq!(far.sum(Kind::Int64).int64_value(&[]), 0);
        let finite = |tensor: &Tensor| tensor.where_self(&spoilt.logical_not(), &tensor.zeros_like());
        let (got, expected) = (finite(&got), finite(&expected));
        check(&got, &expected, &(expected.abs().max() * WINOGRAD))?;
    }

    #[test]
    fn norms_and_their_gradients(
        seed in any::<u64>(), size in [1_i64..4, 1..6, 1..12, 1..12], layout in 1..3_usize, added in any::<bool>(), relu in any::<bool>(),
        threads in 1..5_usize,
    ) {
        manual_seed(seed);
        crate::set_num_threads(threads);
        let channels = size[1] * LANES;
        let size = [size[0], channels, size[2], size[3]];
        // Of fewer values than this, the rounded variance says little.
        prop_assume!(size[0] * size[2] * size[3] >= 8);
        let [x, other] = [layout, 1].map(|layout| images(size, layout).set_requires_grad(true));
        prop_assume!(norm::takes(&x));
        let [weight, bias] = [(); 2].map(|()| random(&[channels]).set_requires_grad(true));
        let (mean, var) = (Tensor::zeros([channels], FLOAT), Tensor::ones([channels], FLOAT));
        let norm = BatchNorm {
            weight: Some(&weight), bias: Some(&bias), running_mean: &mean, running_var: &var, counter: None, momentum: 0.3, eps: 1e-3,
        };
        let y = norm.forward(&x, After { other: added.then_some(&other), relu }).unwrap();
        let upstream = random(&y.size());
        (&y * &upstream).sum(Kind::Float).backward();
        let (mean64, var64) = (double(&mean).zeros_like(), double(&var).ones_like());
        let leaves = [&x, &weight, &bias, &other].map(double);
        let expected = gradients(&leaves.each_ref(), &double(&upstream), |leaves| {
            let y = leaves[0].batch_norm(Some(&leaves[1]), Some(&leaves[2]), Some(&mean64), Some(&var64), true, 0.3, 1e-3, false);
            let y = if added { y + &leaves[3] } else { y };
            if relu { y.relu() } else { y }
        });
        check(&mean, &mean64, &(mean64.abs() * 1e-5 + 1e-5))?;
        check(&var, &var64, &(var64.abs() * 1e-5 + 1e-5))?;
        // Where a value is almost zero, rounding may put it on the other side of the ReLU: then gradients differ.
        let flips = relu && expected[0].abs().masked_select(&expected[0].ne(0.0)).le(1e-4).any().int64_value(&[]) != 0;
        let got = [y, x.grad(), weight.grad(), bias.grad()];
        for (got, expected) in got.iter().zip(&expected).take(if flips { 1 } else { 4 }) {
            check(got, expected, &(expected.abs().max() * 1e-4 + 1e-4))?;
        }
        if added && !flips {
            check(&other.grad(), &expected[4], &Tensor::from(1e-4))?;
        }
    }

    #[test]
    fn pools_are_libtorchs(
        seed in any::<u64>(), size in [1_i64..4, 1..70, 1..14, 1..14], kernel in [1_i64..5, 1..5], stride in [1_i64..4, 1..4],
        padding in [0_i64..3, 0..3], relu in any::<bool>(), value in odd(), share in 0.0..1.0,
    ) {
        manual_seed(seed);
        prop_assume!((0..2).all(|axis| 2 * padding[axis] <= kernel[axis] && size[axis + 2] + 2 * padding[axis] >= kernel[axis]));
        let x = images(size, 1);
        place(&x, share, value);
        let window = Window { kernel_size: kernel, stride, padding };
        let pooled = x.max_pool2d(kernel, stride, padding, [1, 1], false);
        let expected = if relu { pooled.relu() } else { pooled };
        let got = pixels::max_pool(&x, &window, [expected.size()[2], expected.size()[3]], relu);
        // One channel, or one pixel, may lie in either way.
        if let Some(got) = got {
            check(&got, &double(&expected), &Tensor::from(0.0))?;
        }
    }
}

/// Such numbers would take a hundred times as long. The caller's own arithmetic stays as it is.
#[test]
fn numbers_below_the_normal_ones_count_as_zero() {
    const DENORMAL: f32 = 1e-39;
    let large = |size: &[i64]| Tensor::full(size, 1e5, FLOAT);
    for threads in [1, 2] {
        crate::set_num_threads(threads);
        let x = to_memory_format(&Tensor::full([1, 64, 40, 40], f64::from(DENORMAL), FLOAT), MemoryFormat::ChannelsLast).unwrap();
        let sum = Sum { relu: false, in_place: false };
        let points = pointwise::Weight::new(&large(&[64, 64, 1, 1]), None).unwrap().conv(&x, [1, 1], [0, 0], None, sum).unwrap();
        let tiles = winograd::Weight::new(&large(&[64, 64, 3, 3])).unwrap().conv(&x, None, [1, 1], None, sum).unwrap();
        for y in [points, tiles] {
            assert_eq!(y.abs().max().double_value(&[]), 0.0);
        }
        assert!(std::hint::black_box(DENORMAL) * std::hint::black_box(0.5) > 0.0);
    }
}

/// As in libtorch: the whole channel is no number, with a ReLU too, and the others are what they were.
#[test]
fn what_is_no_number_spoils_its_channel_of_a_norm() {
    manual_seed(1);
    for (value, relu) in [(f64::NAN, false), (f64::NAN, true), (f64::INFINITY, true), (f64::NEG_INFINITY, false)] {
        let norm = |x: &Tensor| {
            let (mean, var) = (Tensor::zeros([32], FLOAT), Tensor::ones([32], FLOAT));
            let norm = BatchNorm {
                weight: None,
                bias: None,
                running_mean: &mean,
                running_var: &var,
                counter: None,
                momentum: 0.1,
                eps: 1e-5,
            };
            norm.forward(x, After { other: None, relu }).unwrap()
        };
        let x = images([2, 32, 5, 5], 1);
        let expected = norm(&x);
        let _ = expected.select(1, 20).fill_(f64::NAN);
        let _ = x.get(1).get(20).get(3).get(2).fill_(value);
        let got = norm(&x);
        assert!(got.allclose(&expected, 0.0, 0.0, true), "{value} {relu}");
    }
}
