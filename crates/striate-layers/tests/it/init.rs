//! Parameters start as PyTorch's after `torch.manual_seed`.
use crate::harness::{Tensors, Tolerance, compare, goldens};
use striate_layers::{Conv2d, Fan, Init, Linear, Op, Shape, create_params};
use striate_torch::Generator;
use tch::Kind;

const BITS: Tolerance = Tolerance { relative: 0.0, absolute: 0.0 };
const CLOSE: Tolerance = Tolerance { relative: 1e-6, absolute: 1e-6 };

/// A layer, an input for it, and how near its first parameters must be to PyTorch's.
type Start = (&'static str, Op, Shape, Tolerance);

fn starts() -> Vec<Start> {
    let image = Shape::image(3, 9, 9);
    let features = Shape::vector(21);
    let linear = |init| Op::from(Linear::new(10).no_bias().init(init, Init::zeros()));
    let conv = |init| Op::from(Conv2d::new(8, [3, 5]).no_bias().init(init, Init::zeros()));
    let truncated = |std, bound| linear(Init::TruncatedNormal { std, bound });
    vec![
        ("conv2d", Conv2d::new(8, [3, 5]).into(), image.clone(), BITS),
        ("conv2d_groups", Conv2d::new(4, 3).groups(2).into(), Shape::image(6, 9, 9), BITS),
        ("linear", Linear::new(10).into(), features.clone(), BITS),
        ("trunc_normal", truncated(0.1, 0.15), features.clone(), CLOSE),
        ("trunc_normal_narrow", truncated(1.0, 0.3), features.clone(), CLOSE),
        ("trunc_normal_googlenet", truncated(0.01, 2.0), features, CLOSE),
        ("kaiming_normal_fan_out", conv(Init::he_normal(Fan::Out)), image.clone(), CLOSE),
        ("xavier_uniform", conv(Init::XavierUniform { gain: 5.0 / 3.0 }), image.clone(), CLOSE),
        ("xavier_normal", conv(Init::XavierNormal { gain: 1.0 }), image, CLOSE),
    ]
}

fn create((_, op, input, _): &Start, seed: u64) -> Tensors {
    let params = create_params(op.layer(), std::slice::from_ref(input), Kind::Float, Some(&mut Generator::new(seed))).unwrap();
    params.into_iter().map(|(spec, tensor)| (spec.name.to_owned(), tensor)).collect()
}

#[test]
fn parameters_start_as_pytorchs() {
    let goldens = goldens();
    let starts = starts();
    let mut names: Vec<&str> = starts.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, goldens.inits.keys().collect::<Vec<_>>());
    for start in &starts {
        let (name, _, _, tolerance) = start;
        let result = compare(&goldens.inits[*name], &create(start, goldens.init_seed), *tolerance);
        assert!(result.is_ok(), "{name}: {result:?}");
        let other_seed = compare(&goldens.inits[*name], &create(start, goldens.init_seed + 1), *tolerance);
        assert!(other_seed.is_err(), "{name} does not depend on the seed");
    }
}
