//! Exports, run by tract, against the network in libtorch: two runtimes that share no code.
#![cfg(feature = "check")]
#![allow(clippy::unwrap_used)]
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use striate_datasets::{DecodeOptions, ImageSize, Interpolation, Normalise, Preprocess, decode_image};
use striate_export::{Batch, CustomNodes, ExportOptions, Onnx, Precision, Runner, Values};
use striate_graph::{Graph, GraphError, InitOptions, Network, NetworkBuilder, Value};
use striate_infer::Calibration;
use striate_layers::{
    Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dropout, Flatten, Forward,
    Layer, LayerError, Linear, LocalResponseNorm, MaxPool2d, Mode, Op, PadShortcut, Padding, RbfOutput, Shape, Softmax,
    SparseConv2d, StochasticDepth, Subsampling2d, ZeroChannels, loss::Loss,
};
use striate_models::{Bundle, BundleInfo, Registry, find};
use striate_torch::Generator;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// A bundle in a folder of its own.
struct Example {
    folder: TempDir,
    network: Network,
    info: BundleInfo,
}

impl Example {
    /// A network with random parameters, running statistics included.
    fn new(graph: Graph, classes: usize, preprocess: Option<Preprocess>) -> Self {
        let network = Network::new(graph.clone(), &InitOptions { seed: 1, ..InitOptions::default() }).unwrap();
        let _no_grad = striate_torch::no_grad();
        let mut random = Generator::new(2);
        for (name, mut tensor) in network.state() {
            if name.ends_with("running_var") {
                random.uniform(&mut tensor, 0.5, 2.0).unwrap();
            } else if tensor.kind() == Kind::Float && tensor.dim() == 1 {
                random.normal(&mut tensor, 0.5, 0.5).unwrap();
            }
        }
        let classes: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
        Self { folder: tempfile::tempdir().unwrap(), network, info: BundleInfo::new(graph, &classes, preprocess) }
    }

    /// The same around some layers.
    fn of(input: [i64; 3], define: impl Fn(&mut NetworkBuilder, Value) -> Result<Value, GraphError>) -> Self {
        let graph = Graph::build(|net| {
            let x = net.input(input);
            let x = define(net, x)?;
            net.output("logits", x)
        });
        Self::new(graph.unwrap(), 0, None)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, options: &ExportOptions) -> Onnx {
        Onnx::of_bundle(&self.bundle(), options).unwrap()
    }

    /// Writes the bundle.
    fn bundle(&self) -> PathBuf {
        let path = self.path("bundle.safetensors");
        Bundle { info: self.info.clone(), state: self.network.state() }.write(&path).unwrap();
        path
    }

    fn error(&self, options: &ExportOptions) -> String {
        let onnx = Onnx::of_bundle(&self.bundle(), options);
        onnx.and_then(|onnx| onnx.write(&self.path("x.onnx"))).unwrap_err().to_string()
    }

    fn logits(&self, images: &Tensor) -> Vec<f32> {
        let _no_grad = striate_torch::no_grad();
        floats(self.network.forward(images, Mode::Eval).unwrap().logits())
    }

    /// The largest difference between the export's answers and the network's, as a share of the largest answer.
    #[track_caller]
    fn difference(&self, options: &ExportOptions) -> f32 {
        let mut images = Tensor::zeros([&[3], self.info.input()].concat(), (Kind::Float, Device::Cpu));
        Generator::new(3).normal(&mut images, 0.0, 1.0).unwrap();
        let got = Runner::new(&self.export(options)).unwrap().run(&[batch(&images)]).unwrap();
        largest_difference(&self.logits(&images), &got[0])
    }
}

fn raw() -> ExportOptions {
    ExportOptions { raw: true, ..ExportOptions::default() }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.contiguous().flatten(0, -1).try_into().unwrap()
}

fn batch(tensor: &Tensor) -> Batch {
    let shape = tensor.size().iter().map(|size| *size as usize).collect();
    let values = match tensor.kind() {
        Kind::Uint8 => Values::Bytes(tensor.contiguous().flatten(0, -1).try_into().unwrap()),
        _ => Values::Floats(floats(tensor)),
    };
    Batch { shape, values }
}

#[track_caller]
fn largest_difference(expected: &[f32], got: &[f32]) -> f32 {
    assert_eq!(expected.len(), got.len());
    let scale = expected.iter().fold(0.0, |scale: f32, value| scale.max(value.abs()));
    assert!(scale > 0.0);
    expected.iter().zip(got).map(|(one, other)| (one - other).abs() / scale).fold(0.0, f32::max)
}

#[test]
fn every_layer_computes_what_libtorch_does() {
    let around = PadShortcut::new(9, 2).zeros(ZeroChannels::Around);
    let one: Vec<(&str, Op)> = vec![
        ("relu", Activation::Relu.into()),
        ("tanh", Activation::Tanh.into()),
        ("scaled tanh", Activation::ScaledTanh.into()),
        ("sigmoid", Activation::Sigmoid.into()),
        ("global mean", AdaptiveAvgPool2d::global().into()),
        ("means side by side", AdaptiveAvgPool2d::new([3, 11]).into()),
        ("means that overlap", AdaptiveAvgPool2d::new([4, 7]).into()),
        ("more means than values", AdaptiveAvgPool2d::new([13, 12]).into()),
        ("global max", AdaptiveMaxPool2d::global().into()),
        ("max side by side", AdaptiveMaxPool2d::new([9, 1]).into()),
        ("max that overlaps", AdaptiveMaxPool2d::new([4, 7]).into()),
        ("mean", AvgPool2d::new([2, 3]).stride(2).padding([1, 0]).into()),
        ("mean with a last window", AvgPool2d { ceil_mode: true, ..AvgPool2d::new(2).stride(3) }.into()),
        ("mean with a last window and padding", AvgPool2d { ceil_mode: true, ..AvgPool2d::new(4).stride(3).padding(1) }.into()),
        (
            "mean of what is there",
            AvgPool2d { ceil_mode: true, count_include_pad: false, ..AvgPool2d::new(4).stride(3).padding(2) }.into(),
        ),
        ("max", MaxPool2d::new(3).stride(2).padding(1).into()),
        ("max with a last window", MaxPool2d::new(2).stride(3).ceil_mode().into()),
        ("max with gaps", MaxPool2d { dilation: [2, 1].into(), ..MaxPool2d::new(3) }.into()),
        ("batch norm", BatchNorm2d::new().eps(1e-3).into()),
        ("batch norm without affine", BatchNorm2d { affine: false, ..BatchNorm2d::new() }.into()),
        ("convolution", Conv2d::new(8, [3, 2]).stride([1, 2]).padding([2, 1]).dilation([2, 1]).groups(2).into()),
        ("same", Conv2d { padding: Padding::Same, ..Conv2d::new(5, [4, 2]).no_bias() }.into()),
        ("flatten", Flatten.into()),
        ("dropout", Dropout::new(0.5).into()),
        ("stochastic depth", StochasticDepth::new(0.5).into()),
        ("LRN", LocalResponseNorm { alpha: 0.5, ..LocalResponseNorm::new(3) }.into()),
        ("LRN of an even size", LocalResponseNorm { alpha: 0.5, k: 0.7, ..LocalResponseNorm::new(4) }.into()),
        ("LRN in groups", LocalResponseNorm { alpha: 0.5, beta: 0.6, ..LocalResponseNorm::new(3).groups(2) }.into()),
        ("shortcut", PadShortcut::new(9, 1).into()),
        ("shortcut with zeros around", around.into()),
        ("softmax", Softmax.into()),
        ("sparse convolution", SparseConv2d::new(vec![vec![0, 2], vec![1], vec![3, 0, 1]], [2, 3]).into()),
        ("subsampling", Subsampling2d::new(2).into()),
    ];
    for (name, op) in one {
        let example = Example::of([6, 9, 11], |net, x| net.add("layer", op.clone(), x));
        let difference = example.difference(&raw());
        assert!(difference < 2e-6, "{name}: {difference}");
    }
}

#[test]
fn layers_of_several_inputs_and_of_vectors_too() {
    let example = Example::of([4, 9, 7], |net, x| {
        let a = net.add("a", Conv2d::same(3, 3), x)?;
        let b = net.add("b", Conv2d::same(3, 1), x)?;
        let sum = net.add("sum", Add, [a, b, a])?;
        let x = net.add("concat", Concat, [sum, x, b])?;
        let x = net.add("flatten", Flatten, x)?;
        let x = net.add("fc1", Linear::new(84).no_bias(), x)?;
        let x = net.add("fc2", Linear::new(84), x)?;
        net.add("codes", RbfOutput::digits(10), x)
    });
    assert!(example.difference(&raw()) < 2e-6);
    assert_eq!(example.export(&raw()).signature(), "input [batch, 4, 9, 7] to logits [batch, 10]");
}

/// Names of parameters and values that would be one in ONNX, and an output that is an input.
#[test]
fn names_that_meet_stay_apart() {
    let graph = Graph::build(|net| {
        let x = net.input([2, 5, 5]);
        let mut scope = net.scope("a");
        let w = scope.add("weight", Conv2d::same(2, 3), x)?;
        let y = net.add("a", Conv2d::same(2, 3), w)?;
        net.output("a.weight", y)?;
        net.output("same", x)
    });
    let example = Example::new(graph.unwrap(), 0, None);
    let mut images = Tensor::zeros([1, 2, 5, 5], (Kind::Float, Device::Cpu));
    Generator::new(3).normal(&mut images, 0.0, 1.0).unwrap();
    let got = Runner::new(&example.export(&raw())).unwrap().run(&[batch(&images)]).unwrap();
    assert!(largest_difference(&example.logits(&images), &got[0]) < 2e-6);
    assert_eq!(got[1], floats(&images));
}

fn residual(net: &mut NetworkBuilder, x: Value) -> Result<Value, GraphError> {
    let x = net.add("conv1", Conv2d::same(8, 3).no_bias(), x)?;
    let x = net.add("bn1", BatchNorm2d::new(), x)?;
    let x = net.add("relu1", Activation::Relu, x)?;
    let p = net.add("pool", MaxPool2d::new(2), x)?;
    let y = net.add("conv2", Conv2d::same(8, 3), p)?;
    let y = net.add("bn2", BatchNorm2d { affine: false, ..BatchNorm2d::new() }, y)?;
    let x = net.add("add", Add, [y, p])?;
    let x = net.add("relu2", Activation::Relu, x)?;
    let a = net.add("a", Conv2d::new(4, 1), x)?;
    let b = net.add("b", Conv2d::new(4, 1), x)?;
    let x = net.add("concat", Concat, [a, b])?;
    let x = net.add("drop", Dropout::new(0.3), x)?;
    let x = net.add("mean", AdaptiveAvgPool2d::global(), x)?;
    let x = net.add("flatten", Flatten, x)?;
    net.add("fc", Linear::new(5), x)
}

#[test]
fn batch_norm_goes_into_convolutions_unless_it_shall_not() {
    let example = Example::of([3, 12, 10], residual);
    let apart = ExportOptions { fold: false, ..raw() };
    assert!(example.difference(&raw()) < 2e-6 && example.difference(&apart) < 2e-6);
    let norms =
        |options: &ExportOptions| format!("{:?}", example.export(options)).matches("op_type: \"BatchNormalization\"").count();
    assert_eq!((norms(&raw()), norms(&apart)), (0, 2));
    // A convolution that others read keeps its values.
    let read_twice = Example::of([3, 6, 6], |net, x| {
        let x = net.add("conv", Conv2d::same(3, 3), x)?;
        let y = net.add("bn", BatchNorm2d::new(), x)?;
        net.add("add", Add, [x, y])
    });
    assert!(read_twice.difference(&raw()) < 2e-6);
}

#[test]
fn half_and_bytes_are_close() {
    let mut example = Example::of([3, 12, 10], residual);
    let half = ExportOptions { precision: Precision::Float16, ..raw() };
    let difference = example.difference(&half);
    assert!(difference > 1e-6 && difference < 5e-3, "{difference}");
    assert_eq!(2 * example.export(&half).tensors_len(), example.export(&raw()).tensors_len());

    let int8 = ExportOptions { precision: Precision::Int8, ..raw() };
    assert!(example.error(&int8).ends_with("bundle.safetensors has no int8 calibration: store one in the bundle first"));
    let mut images = Tensor::zeros([64, 3, 12, 10], (Kind::Float, Device::Cpu));
    Generator::new(4).normal(&mut images, 0.0, 1.0).unwrap();
    example.info.calibration = Some(Calibration::measure(&example.network, &[images]).unwrap());
    let difference = example.difference(&int8);
    assert!(difference > 1e-4 && difference < 0.05, "{difference}");
    let written = format!("{:?}", example.export(&int8));
    // The input, conv1's ReLU and its pooling, the ReLU after the sum, the flattened means; and five weights with their biases.
    assert_eq!(written.matches("op_type: \"QuantizeLinear\"").count(), 5);
    assert_eq!(written.matches("op_type: \"DequantizeLinear\"").count(), 15);
}

fn of_pictures(image: ImageSize, interpolation: Interpolation, channels: i64) -> Example {
    let input = [channels, 20, 24];
    let normalise = Normalise { mean: vec![0.4, 0.5, 0.3][..channels as usize].to_vec(), std: vec![0.2; channels as usize] };
    let preprocess = Preprocess { image, input, normalise, interpolation };
    let graph = Graph::build(|net| {
        let x = net.input(input);
        let x = residual(net, x)?;
        net.output("logits", x)
    });
    Example::new(graph.unwrap(), 5, Some(preprocess))
}

/// A picture without noise, uint8 `[C, H, W]`.
fn picture([channels, height, width]: [i64; 3]) -> Tensor {
    let of = |c: i64, y: i64, x: i64| (40 * c + (9 * y + 5 * x + (x * y) / 7)) % 256;
    let values = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| of(c, y, x) as u8)));
    Tensor::from_slice(&values.collect::<Vec<_>>()).view([channels, height, width])
}

#[test]
fn pictures_of_any_size_become_the_inputs_that_striate_makes() {
    let shorter = ImageSize::ShorterSide { shorter_side: 27 };
    let cases = [
        (shorter, Interpolation::Bilinear, 3),
        (shorter, Interpolation::Bicubic, 3),
        (ImageSize::Exact([20, 24]), Interpolation::Bicubic, 3),
        (ImageSize::Exact([17, 24]), Interpolation::Bilinear, 1),
    ];
    for (image, interpolation, channels) in cases {
        let example = of_pictures(image, interpolation, channels);
        let onnx = example.export(&ExportOptions::default());
        assert_eq!(onnx.signature(), format!("images [batch, height, width, {channels}] to probabilities [batch, 5]"));
        let runner = Runner::new(&onnx).unwrap();
        for size in [[27, 27], [60, 41], [35, 90], [19, 22], [21, 13]] {
            let picture = picture([channels, size[0], size[1]]);
            let preprocess = example.info.preprocess.as_ref().unwrap();
            let input = decode_image(&picture, preprocess, &DecodeOptions::default()).unwrap();
            let expected = floats(&Tensor::from_slice(&example.logits(&input)).softmax(0, Kind::Float));
            let pixels = picture.permute([1, 2, 0]).unsqueeze(0);
            let got = runner.run(&[batch(&pixels)]).unwrap();
            let difference = largest_difference(&expected, &got[0]);
            assert!(difference < 1e-3, "{image} {interpolation:?} {size:?}: {difference}");
        }
    }
}

#[test]
fn classes_that_do_not_exclude_each_other_have_probabilities_of_their_own_at_the_temperature() {
    let mut example = of_pictures(ImageSize::Exact([20, 24]), Interpolation::Bilinear, 3);
    example.info.loss = Loss::BinaryCrossEntropy { label_smoothing: 0.0 };
    example.info.answering.temperature = 2.5;
    let runner = Runner::new(&example.export(&ExportOptions::default())).unwrap();
    let picture = picture([3, 20, 24]);
    let input = decode_image(&picture, example.info.preprocess.as_ref().unwrap(), &DecodeOptions::default()).unwrap();
    let expected: Vec<f32> = example.logits(&input).iter().map(|logit| 1.0 / (1.0 + (-logit / 2.5).exp())).collect();
    let got = runner.run(&[batch(&picture.permute([1, 2, 0]).unsqueeze(0))]).unwrap();
    assert!(largest_difference(&expected, &got[0]) < 1e-5);
}

#[test]
fn auxiliary_heads_and_their_weights_are_left_out() {
    let model = find("googlenet").unwrap().model(&[("aux_heads", true.into()), ("classes", 7.into())]).unwrap();
    let example = Example::new(model.graph().unwrap(), 0, None);
    let path = example.path("x.onnx");
    example.export(&raw()).write(&path).unwrap();
    let written = std::fs::read(path).unwrap();
    let has = |name: &[u8]| written.windows(name.len()).any(|part| part == name);
    assert!(has(b"inception5b") && !has(b"aux"));
}

#[derive(Debug, Serialize, Deserialize)]
struct Scale(f64);

impl Layer for Scale {
    fn name(&self) -> &'static str {
        "Scale"
    }

    fn output_shape(&self, inputs: &[Shape]) -> Result<Shape, LayerError> {
        Ok(inputs[0].clone())
    }

    fn options(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self).ok()
    }
}

impl Forward for Scale {
    fn forward(&self, _: &[Tensor], inputs: &[&Tensor], _: Mode) -> Result<Tensor, LayerError> {
        Ok(inputs[0] * self.0)
    }
}

#[test]
fn layers_of_your_own_give_their_nodes_or_are_named() {
    let example = Example::of([1, 4, 4], |net, x| net.add("half", Op::custom(Scale(0.5)), x));
    let registry = Registry::default().with_layer::<Scale>("Scale");
    let unknown = ExportOptions { registry, ..raw() };
    let told = "layer half (Scale) is a layer of your own, and ONNX has none of its kind: register its nodes with CustomNodes";
    assert_eq!(example.error(&unknown), told);
    let nodes = CustomNodes::default().with("Scale", |options, nodes| {
        let by = nodes.numbers("by", &[], &[options.as_f64().unwrap() as f32])?;
        let input = nodes.inputs()[0].clone();
        Ok(nodes.add("Mul", &[&input, &by], Vec::new()))
    });
    assert!(example.difference(&ExportOptions { nodes, ..unknown }) < 1e-6);
}

#[test]
fn what_cannot_be_exported_is_one_line_and_leaves_nothing() {
    let example = Example::of([3, 12, 10], residual);
    let told = "does not say how pictures become inputs: export the network alone, with normalised inputs";
    assert!(example.error(&ExportOptions::default()).ends_with(told));
    let _no_grad = striate_torch::no_grad();
    let mut weight = example.network.state()["fc.weight"].get(0).get(0);
    let _ = weight.fill_(1e5);
    let half = ExportOptions { precision: Precision::Float16, ..raw() };
    let told = "fc.weight has values beyond 65504, the largest of float16: export it in float32";
    assert_eq!(example.error(&half), told);
    let _ = weight.fill_(f64::NAN);
    assert!(example.error(&raw()).ends_with("fc.weight has values that are NaN or infinite: export another checkpoint"));
    let _ = weight.fill_(0.0);
    let bundle = example.bundle();
    let before = std::fs::read(&bundle).unwrap();
    std::fs::hard_link(&bundle, example.path("other.safetensors")).unwrap();
    let onnx = Onnx::of_bundle(&bundle, &raw()).unwrap();
    let error = onnx.write(&example.path("other.safetensors")).unwrap_err().to_string();
    assert!(error.ends_with("other.safetensors is the bundle itself: write the export to another file"), "{error}");
    assert_eq!(std::fs::read(&bundle).unwrap(), before);
    let mut state = example.network.state();
    state.remove("fc.bias");
    Bundle { info: example.info.clone(), state }.write(&bundle).unwrap();
    let error = Onnx::of_bundle(&bundle, &raw()).unwrap_err().to_string();
    assert!(error.ends_with("1 missing (fc.bias)") && !error.contains('\n'), "{error}");
    assert!(!example.path("x.onnx").exists());
}
