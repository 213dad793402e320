//! The counterpart of each case in `make_goldens.py`.
use crate::harness::{Case, Subject};
use striate_layers::{
    Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dropout, Flatten, Linear,
    LocalResponseNorm, MaxPool2d, Mode, Op, PadShortcut, RbfOutput, Softmax, SparseConv2d, StochasticDepth, Subsampling2d,
    loss::Loss,
};

pub(crate) fn cases() -> Vec<Case> {
    [convolutions(), norms(), pools(), pointwise(), junctions(), lenet(), losses()].into_iter().flatten().collect()
}

fn eval(name: &'static str, layer: impl Into<Op>) -> Case {
    Case { name, subject: Subject::Layer(layer.into(), Mode::Eval) }
}

fn train(name: &'static str, layer: impl Into<Op>) -> Case {
    Case { name, subject: Subject::Layer(layer.into(), Mode::Train) }
}

fn convolutions() -> Vec<Case> {
    let conv = Conv2d::new;
    vec![
        eval("conv2d", conv(4, 3)),
        eval("conv2d_stride_padding", conv(4, 3).stride(2).padding(1)),
        eval("conv2d_rectangular", Conv2d::new(4, [2, 3]).stride([1, 2]).padding([2, 1])),
        eval("conv2d_dilation", conv(4, 3).padding(1).dilation([1, 2])),
        eval("conv2d_groups", conv(4, 3).groups(2)),
        eval("conv2d_depthwise", conv(12, 3).padding(1).groups(6)),
        eval("conv2d_no_bias", conv(4, 3).no_bias()),
        eval("conv2d_same_even", Conv2d::same(4, [2, 4])),
        eval("conv2d_same_dilation", Conv2d::same(4, [3, 2]).dilation([2, 3])),
        eval("conv2d_1x1", conv(4, 1)),
        eval("linear", Linear::new(5)),
        eval("linear_no_bias", Linear::new(5).no_bias()),
    ]
}

fn norms() -> Vec<Case> {
    let norm = BatchNorm2d::new;
    let no_affine = BatchNorm2d { affine: false, ..norm() };
    let cumulative = BatchNorm2d { momentum: None, ..norm() };
    let response = |size| LocalResponseNorm { size, alpha: 0.5, beta: 0.6, k: 1.5, groups: 1 };
    vec![
        train("batch_norm2d_train", norm()),
        eval("batch_norm2d_eval", norm()),
        train("batch_norm2d_eps_train", norm().eps(1e-3)),
        eval("batch_norm2d_eps_eval", norm().eps(1e-3)),
        train("batch_norm2d_momentum", BatchNorm2d { momentum: Some(0.3), ..norm() }),
        train("batch_norm2d_cumulative_1", cumulative.clone()),
        train("batch_norm2d_cumulative_2", cumulative.clone()),
        eval("batch_norm2d_cumulative_eval", cumulative),
        train("batch_norm2d_no_affine_train", no_affine.clone()),
        eval("batch_norm2d_no_affine_eval", no_affine),
        eval("local_response_norm_odd", response(3)),
        eval("local_response_norm_even", response(4)),
        eval("local_response_norm_defaults", LocalResponseNorm::new(5)),
        eval("local_response_norm_alexnet", LocalResponseNorm::alexnet()),
    ]
}

fn pools() -> Vec<Case> {
    let (max, avg) = (MaxPool2d::new, AvgPool2d::new);
    let dilated = MaxPool2d { dilation: [2, 3].into(), ..max(2).stride(1) };
    let padded_avg = avg(3).stride(2).padding(1);
    vec![
        eval("max_pool2d", max(2)),
        eval("max_pool2d_overlapping", max(3).stride(2)),
        eval("max_pool2d_padding", MaxPool2d::new([3, 2]).stride([2, 1]).padding([1, 0])),
        eval("max_pool2d_dilation", dilated),
        eval("max_pool2d_ceil", max(3).stride(2).ceil_mode()),
        eval("avg_pool2d", avg(2)),
        eval("avg_pool2d_overlapping", avg(3).stride(2)),
        eval("avg_pool2d_padding", AvgPool2d::new([3, 2]).stride([2, 1]).padding([1, 0])),
        eval("avg_pool2d_without_pad", AvgPool2d { count_include_pad: false, ..padded_avg.clone() }),
        eval("avg_pool2d_ceil", AvgPool2d { ceil_mode: true, ..padded_avg }),
        eval("adaptive_avg_pool2d_global", AdaptiveAvgPool2d::global()),
        eval("adaptive_avg_pool2d", AdaptiveAvgPool2d::new([2, 3])),
        eval("adaptive_max_pool2d_global", AdaptiveMaxPool2d::global()),
        eval("adaptive_max_pool2d", AdaptiveMaxPool2d::new([2, 3])),
    ]
}

fn pointwise() -> Vec<Case> {
    vec![
        eval("relu", Activation::Relu),
        eval("tanh", Activation::Tanh),
        eval("scaled_tanh", Activation::ScaledTanh),
        eval("sigmoid", Activation::Sigmoid),
        eval("softmax_vector", Softmax),
        eval("softmax_image", Softmax),
        eval("dropout_eval", Dropout::new(0.5)),
        train("dropout_of_nothing", Dropout::new(0.0)),
        eval("stochastic_depth_eval", StochasticDepth::new(0.5)),
        train("stochastic_depth_of_nothing", StochasticDepth::new(0.0)),
    ]
}

fn junctions() -> Vec<Case> {
    vec![
        eval("flatten", Flatten),
        eval("add_2", Add),
        eval("add_3", Add),
        eval("concat", Concat),
        eval("pad_shortcut", PadShortcut::new(8, 2)),
        eval("pad_shortcut_rectangular", PadShortcut::new(8, [1, 3])),
    ]
}

fn lenet() -> Vec<Case> {
    vec![
        eval("subsampling2d", Subsampling2d::new(2)),
        eval("sparse_conv2d_lenet_c3", SparseConv2d::lenet_c3()),
        // The codes are the golden's, as all parameters are.
        eval("rbf_output", RbfOutput::digits(4)),
    ]
}

fn losses() -> Vec<Case> {
    let case = |name, loss| Case { name, subject: Subject::Loss(loss) };
    vec![
        case("cross_entropy", Loss::CrossEntropy { label_smoothing: 0.0 }),
        case("cross_entropy_smoothed", Loss::CrossEntropy { label_smoothing: 0.1 }),
        case("rbf_loss", Loss::Rbf { j: 1.5 }),
    ]
}
