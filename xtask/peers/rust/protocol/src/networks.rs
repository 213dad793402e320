//! The networks of peers that have none of their own with torchvision's names: lists of layers, which each builds of what it has.
//! Numbers of channels are those of the weights in the file, and a convolution has a bias if the file has it.
use Layer::*;

/// A layer; names are those of the weights.
pub enum Layer {
    Conv {
        name: String,
        stride: usize,
        padding: usize,
    },
    BatchNorm {
        name: String,
        eps: f64,
    },
    Linear {
        name: String,
    },
    Relu,
    /// Windows that stick out at the end count if `ceil` says so.
    MaxPool {
        kernel: usize,
        stride: usize,
        padding: usize,
        ceil: bool,
    },
    /// To so many rows and columns.
    AvgPool(usize),
    /// `[N, C, H, W]` to `[N, C * H * W]`.
    Flatten,
    Dropout(f64),
    /// The body's output and the shortcut's are added, and a ReLU follows.
    Residual {
        body: Vec<Layer>,
        shortcut: Vec<Layer>,
    },
    /// Every second pixel, with channels of zeros after the others until there are twice as many.
    PadShortcut,
    /// Branches of one input, their channels one after another.
    Branches(Vec<Vec<Layer>>),
    /// An auxiliary head, which only training needs: its output is another one, and its input goes on.
    Aux(Vec<Layer>),
}

/// The network of this name, if it is here.
pub fn network(name: &str) -> Option<Vec<Layer>> {
    Some(match name {
        "lenet5" => lenet5(),
        "alexnet" => alexnet(),
        "vgg11" => vgg([1, 1, 2, 2, 2]),
        "vgg13" => vgg([2, 2, 2, 2, 2]),
        "vgg16" => vgg([2, 2, 3, 3, 3]),
        "vgg19" => vgg([2, 2, 4, 4, 4]),
        "googlenet" => googlenet(),
        "resnet20-cifar" => resnet_cifar(3),
        "resnet18" => resnet([2, 2, 2, 2], false),
        "resnet34" => resnet([3, 4, 6, 3], false),
        "resnet50" => resnet([3, 4, 6, 3], true),
        "resnet101" => resnet([3, 4, 23, 3], true),
        "resnet152" => resnet([3, 8, 36, 3], true),
        _ => return None,
    })
}

fn conv(name: impl Into<String>, stride: usize, padding: usize) -> Layer {
    Conv { name: name.into(), stride, padding }
}

fn linear(name: impl Into<String>) -> Layer {
    Linear { name: name.into() }
}

fn max_pool(kernel: usize, stride: usize) -> Layer {
    MaxPool { kernel, stride, padding: 0, ceil: false }
}

fn lenet5() -> Vec<Layer> {
    let convs = [conv("c1", 1, 0), Relu, max_pool(2, 2), conv("c3", 1, 0), Relu, max_pool(2, 2), Flatten];
    convs.into_iter().chain([linear("c5"), Relu, linear("f6"), Relu, linear("output")]).collect()
}

fn alexnet() -> Vec<Layer> {
    let feature = |index: usize, stride, padding| [conv(format!("features.{index}"), stride, padding), Relu];
    let mut layers = Vec::new();
    layers.extend(feature(0, 4, 2));
    layers.push(max_pool(3, 2));
    layers.extend(feature(3, 1, 2));
    layers.push(max_pool(3, 2));
    layers.extend([6, 8, 10].into_iter().flat_map(|index| feature(index, 1, 1)));
    layers.extend([max_pool(3, 2), AvgPool(6), Flatten]);
    layers.extend([
        Dropout(0.5),
        linear("classifier.1"),
        Relu,
        Dropout(0.5),
        linear("classifier.4"),
        Relu,
        linear("classifier.6"),
    ]);
    layers
}

fn vgg(depths: [usize; 5]) -> Vec<Layer> {
    let (mut layers, mut index) = (Vec::new(), 0);
    for convs in depths {
        for _ in 0..convs {
            layers.extend([conv(format!("features.{index}"), 1, 1), Relu]);
            index += 2;
        }
        layers.push(max_pool(2, 2));
        index += 1;
    }
    layers.extend([AvgPool(7), Flatten]);
    layers.extend([
        linear("classifier.0"),
        Relu,
        Dropout(0.5),
        linear("classifier.3"),
        Relu,
        Dropout(0.5),
        linear("classifier.6"),
    ]);
    layers
}

fn normed(conv_name: &str, bn: &str, stride: usize, padding: usize) -> [Layer; 2] {
    [conv(conv_name, stride, padding), BatchNorm { name: bn.to_owned(), eps: 1e-5 }]
}

/// A residual block: of two 3x3 convolutions, or the bottleneck with the stride on its 3x3.
fn block(name: &str, stride: usize, bottleneck: bool, shortcut: Vec<Layer>) -> Layer {
    // Stride and padding of each.
    let convs: &[(usize, usize)] = if bottleneck { &[(1, 0), (stride, 1), (1, 0)] } else { &[(stride, 1), (1, 1)] };
    let mut body = Vec::new();
    for (index, (stride, padding)) in convs.iter().enumerate() {
        if index > 0 {
            body.push(Relu);
        }
        let number = index + 1;
        body.extend(normed(&format!("{name}.conv{number}"), &format!("{name}.bn{number}"), *stride, *padding));
    }
    Residual { body, shortcut }
}

fn resnet(depths: [usize; 4], bottleneck: bool) -> Vec<Layer> {
    let mut layers: Vec<Layer> = normed("conv1", "bn1", 2, 3).into();
    layers.extend([Relu, MaxPool { kernel: 3, stride: 2, padding: 1, ceil: false }]);
    for (stage, blocks) in (1..).zip(depths) {
        for index in 0..blocks {
            let name = format!("layer{stage}.{index}");
            let stride = if index == 0 && stage > 1 { 2 } else { 1 };
            let projects = index == 0 && (stage > 1 || bottleneck);
            let projection = || normed(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), stride, 0).into();
            layers.push(block(&name, stride, bottleneck, if projects { projection() } else { Vec::new() }));
        }
    }
    layers.extend([AvgPool(1), Flatten, linear("fc")]);
    layers
}

fn resnet_cifar(blocks: usize) -> Vec<Layer> {
    let mut layers: Vec<Layer> = normed("conv1", "bn1", 1, 1).into();
    layers.push(Relu);
    for stage in 1..=3 {
        for index in 0..blocks {
            let halves = index == 0 && stage > 1;
            let shortcut = if halves { vec![PadShortcut] } else { Vec::new() };
            layers.push(block(&format!("layer{stage}.{index}"), if halves { 2 } else { 1 }, false, shortcut));
        }
    }
    layers.extend([AvgPool(1), Flatten, linear("fc")]);
    layers
}

/// torchvision's `BasicConv2d`.
fn unit(name: &str, stride: usize, padding: usize) -> [Layer; 3] {
    [conv(format!("{name}.conv"), stride, padding), BatchNorm { name: format!("{name}.bn"), eps: 1e-3 }, Relu]
}

fn inception(name: &str) -> Layer {
    let one = unit(&format!("{name}.branch1"), 1, 0).into();
    // Both larger kernels are 3x3 in torchvision.
    let reduced = |branch: usize| {
        let [reduce, conv] = [(0, 0), (1, 1)].map(|(index, padding)| unit(&format!("{name}.branch{branch}.{index}"), 1, padding));
        reduce.into_iter().chain(conv).collect()
    };
    let mut pooled = vec![MaxPool { kernel: 3, stride: 1, padding: 1, ceil: true }];
    pooled.extend(unit(&format!("{name}.branch4.1"), 1, 0));
    Branches(vec![one, reduced(2), reduced(3), pooled])
}

fn aux(name: &str) -> Layer {
    let mut head = vec![AvgPool(4)];
    head.extend(unit(&format!("{name}.conv"), 1, 0));
    head.extend([Flatten, linear(format!("{name}.fc1")), Relu, Dropout(0.7), linear(format!("{name}.fc2"))]);
    Aux(head)
}

fn googlenet() -> Vec<Layer> {
    let halving = |kernel| MaxPool { kernel, stride: 2, padding: 0, ceil: true };
    let mut layers: Vec<Layer> = unit("conv1", 2, 3).into();
    layers.push(halving(3));
    layers.extend(unit("conv2", 1, 0).into_iter().chain(unit("conv3", 1, 1)));
    layers.push(halving(3));
    layers.extend(["3a", "3b"].map(|name| inception(&format!("inception{name}"))));
    layers.push(halving(3));
    for (name, head) in [("4a", Some("aux1")), ("4b", None), ("4c", None), ("4d", Some("aux2")), ("4e", None)] {
        layers.push(inception(&format!("inception{name}")));
        layers.extend(head.map(aux));
    }
    layers.push(halving(2));
    layers.extend(["5a", "5b"].map(|name| inception(&format!("inception{name}"))));
    layers.extend([AvgPool(1), Flatten, Dropout(0.2), linear("fc")]);
    layers
}
