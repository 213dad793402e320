//! Classifying: one answer for one picture, however it comes and however many threads ask.
use crate::tints::{self, Scale, classes, picture};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use striate::data::{Opened, section};
use striate::datasets::image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use striate::datasets::{InMemory, Loader, LoaderOptions, decode_image};
use striate::graph::{Graph, InitOptions, Network};
use striate::layers::loss::Loss;
use striate::layers::{Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, Mode, Op};
use striate::tch::{Device, Kind, Tensor};
use striate::train::{TrainConfig, Trainer, evaluate};
use striate::{Answering, Bundle, BundleInfo, Classifier, ClassifierOptions, Precision, Prediction, Registry, Tta, Unknown};

const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Classifier>();
};

/// The file of a picture.
fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// An image as a tensor: uint8, `[3, H, W]`.
fn tensor(image: &RgbImage) -> Tensor {
    let (width, height) = image.dimensions();
    Tensor::from_slice(image.as_raw()).view([i64::from(height), i64::from(width), 3]).permute([2, 0, 1])
}

#[track_caller]
fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
}

#[test]
fn every_form_of_a_picture_has_the_same_answer() {
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let classifier = Classifier::open(tints::write_bundle(folder.path())).unwrap();
    // Every pixel is the same, so the means are the pixel, and the logits ten times that over 255:
    // 2, 10 and 0.
    let image = RgbImage::from_pixel(30, 24, Rgb([51, 255, 0]));
    let (bytes, path) = (png(&image), folder.path().join("green.png"));
    std::fs::write(&path, &bytes).unwrap();

    let prediction = classifier.classify(&path).unwrap();
    let sum = 2_f64.exp() + 10_f64.exp() + 1.0;
    let expected = [("green", 1, 10_f64.exp() / sum), ("red", 0, 2_f64.exp() / sum), ("blue", 2, 1.0 / sum)];
    assert_eq!(prediction.top.len(), expected.len());
    for (answer, (class, index, probability)) in prediction.top.iter().zip(expected) {
        assert_eq!((answer.class.as_str(), answer.index), (class, index));
        close(answer.probability, probability);
    }

    assert_eq!(classifier.classify(path.as_path()).unwrap(), prediction);
    assert_eq!(classifier.classify(&bytes).unwrap(), prediction);
    assert_eq!(classifier.classify(bytes.as_slice()).unwrap(), prediction);
    assert_eq!(classifier.classify(&tensor(&image)).unwrap(), prediction);
    assert_eq!(classifier.classify(&DynamicImage::from(image)).unwrap(), prediction);
}

/// Views of a picture of one colour have the same logits; the temperature changes probabilities alone.
#[test]
fn a_bundle_says_how_its_logits_are_read() {
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = tints::write_bundle(folder.path());
    let read = |answering: Answering| {
        let mut bundle = Bundle::read_with(&path, &Registry::default()).unwrap();
        bundle.info.answering = answering;
        bundle
    };
    let classifier = |bundle: &Bundle, options: ClassifierOptions| Classifier::of(bundle, &path, options);
    // Logits 2, 10 and 0, of which the logarithm of the sum of exponentials is 10.0004.
    let image = DynamicImage::from(RgbImage::from_pixel(30, 24, Rgb([51, 255, 0])));
    for (energy, unknown) in [(10.0, false), (10.001, true)] {
        let rule = Some(Unknown { energy, accepted: 0.9 });
        let warm = classifier(&read(Answering { temperature: 4.0, unknown: rule, tta: Tta::Off }), ClassifierOptions::default())
            .unwrap();
        let Prediction { top, unknown: told } = warm.classify(&image).unwrap();
        assert_eq!((told, top[0].class.as_str()), (unknown, "green"));
        close(top[0].probability, 2.5_f64.exp() / (0.5_f64.exp() + 2.5_f64.exp() + 1.0));
        close(
            warm.logits(&decode_image(&image, warm.preprocess(), &Default::default()).unwrap()).unwrap().double_value(&[0, 1]),
            10.0,
        );
    }

    let flipped = read(Answering { tta: Tta::Flip, ..Answering::default() });
    let shift = |pixels| {
        let mut options = ClassifierOptions::default();
        options.tta = Some(Tta::FlipShift(pixels));
        options
    };
    for options in [ClassifierOptions::default(), shift(1)] {
        close(
            classifier(&flipped, options).unwrap().classify(&image).unwrap().top[0].probability,
            10_f64.exp() / (2_f64.exp() + 10_f64.exp() + 1.0),
        );
    }
    let error = classifier(&flipped, shift(1000)).unwrap_err().to_string();
    assert!(error.starts_with("tta = flip-shift=1000 shifts pictures by 1000, and the network takes [3, "), "{error}");
}

#[test]
fn a_bad_picture_leaves_the_others_their_answers() {
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = tints::write_bundle(folder.path());
    let (red, blue) = (png(&picture(0, 0)), png(&picture(2, 0)));
    let pictures = [red.as_slice(), b"no picture", &blue];
    // In one batch, in batches of which one is bad as a whole, and mixed.
    for batch_size in [3, 1, 2] {
        let mut options = ClassifierOptions::default();
        options.batch_size = batch_size;
        let classifier = Classifier::open_with(&path, options).unwrap();
        let results = classifier.classify_all(pictures);
        assert_eq!(results.len(), 3);
        for (result, class) in [(&results[0], "red"), (&results[2], "blue")] {
            assert_eq!(result.as_ref().unwrap().top[0].class, class, "batches of {batch_size}");
        }
        let error = results[1].as_ref().unwrap_err();
        assert!(error.to_string().starts_with("the picture cannot be read: "), "{error}");
        assert!(!error.is_failure());
    }
    assert!(Classifier::open(&path).unwrap().classify_all(Vec::<&[u8]>::new()).is_empty());
}

#[test]
fn as_many_answers_as_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = tints::write_bundle(folder.path());
    let image = DynamicImage::from(picture(2, 0));
    let classes = |top: usize| {
        let mut options = ClassifierOptions::default();
        options.top = top;
        let answers = Classifier::open_with(&path, options).unwrap().classify(&image).unwrap().top;
        assert!(answers.is_sorted_by(|a, b| a.probability >= b.probability));
        answers.into_iter().map(|answer| answer.class).collect::<Vec<_>>()
    };
    assert_eq!(classes(1), ["blue"]);
    assert_eq!(classes(2).len(), 2);
    assert_eq!(classes(100).len(), 3);
}

/// A small network with random weights.
fn convolutions() -> Bundle {
    let graph = Graph::build(|net| {
        let x = net.input([3, 16, 16]);
        let x = net.add("conv1", Conv2d::same(16, 3).no_bias(), x)?; // [16, 16, 16]
        let x = net.add("bn1", BatchNorm2d::new(), x)?;
        let x = net.add("relu1", Activation::Relu, x)?;
        let x = net.add("conv2", Conv2d::same(16, 3), x)?;
        let x = net.add("relu2", Activation::Relu, x)?;
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [16, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [16]
        let x = net.add("fc", Linear::new(3), x)?; // [3]
        net.output("logits", x)
    });
    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    Bundle { info: BundleInfo::new(network.graph().clone(), &classes(), Some(tints::preprocess())), state: network.state() }
}

#[test]
fn threads_that_share_a_classifier_get_the_answers_of_one() {
    const THREADS: usize = 8;
    striate_torch::set_num_threads(1);
    let classifier = Arc::new(Classifier::of(&convolutions(), Path::new("c"), ClassifierOptions::default()).unwrap());
    let pictures: Vec<Vec<u8>> = (0..24).map(|number| png(&picture(number as usize % 3, number))).collect();
    let classify = |classifier: &Classifier, pictures: &[Vec<u8>]| -> Vec<Prediction> {
        pictures.iter().map(|picture| classifier.classify(picture).unwrap()).collect()
    };
    let expected = classify(&classifier, &pictures);
    assert_ne!(expected[0], expected[1]);
    let pictures = Arc::new(pictures);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (classifier, pictures) = (Arc::clone(&classifier), Arc::clone(&pictures));
            std::thread::spawn(move || classify(&classifier, &pictures))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn a_network_with_a_layer_of_ones_own_is_trained_written_and_opened() {
    const COUNT: u32 = 24;
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let graph = Graph::build(|net| {
        let x = net.input([3, 16, 16]);
        let x = net.add("avgpool", AdaptiveAvgPool2d::global(), x)?; // [3, 1, 1]
        let x = net.add("flatten", Flatten, x)?; // [3]
        let x = net.add("scale", Op::custom(Scale { by: 4.0 }), x)?;
        let x = net.add("fc", Linear::new(3), x)?; // [3]
        net.output("logits", x)
    });
    let images: Vec<Tensor> = (0..COUNT).map(|number| tensor(&picture(number as usize % 3, number))).collect();
    let labels = Tensor::arange(i64::from(COUNT), (Kind::Int64, Device::Cpu)).remainder(3);
    let data = InMemory::new("tints", Tensor::stack(&images, 0), &labels, classes()).unwrap();

    let network = Network::new(graph.unwrap(), &InitOptions::default()).unwrap();
    let train = Loader::new(&data, tints::preprocess(), LoaderOptions::train(8, 0)).unwrap();
    let judge = Loader::new(&data, tints::preprocess(), LoaderOptions::eval(8)).unwrap();
    let config = TrainConfig { epochs: 20, lr: 0.1, ..TrainConfig::default() };
    Trainer::new(&network, &train, &judge, config).unwrap().run().unwrap();
    assert_eq!(evaluate(&network, &judge, Loss::default()).unwrap().accuracy, 1.0);

    let path = folder.path().join("own.safetensors");
    let info = BundleInfo::new(network.graph().clone(), &classes(), Some(tints::preprocess()));
    Bundle { info, state: network.state() }.write(&path).unwrap();
    let error = Classifier::open(&path).unwrap_err().to_string();
    assert!(error.contains("Scale") && !error.contains('\n'), "{error}");

    let mut options = ClassifierOptions::default();
    options.registry = Registry::default().with_layer::<Scale>("Scale");
    let classifier = Classifier::open_with(&path, options).unwrap();
    for channel in 0..3 {
        let image = DynamicImage::from(picture(channel, 500));
        let prediction = classifier.classify(&image).unwrap();
        assert_eq!(prediction.top[0].index, channel);
        let input = decode_image(&image, &tints::preprocess(), &Default::default()).unwrap();
        let logits = network.forward(&input, Mode::Eval).unwrap().logits().softmax(1, Kind::Double);
        close(prediction.top[0].probability, logits.double_value(&[0, channel as i64]));
    }
}

#[test]
fn an_evaluation_compares_classes_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let classifier = Classifier::open(tints::write_bundle(folder.path())).unwrap();
    let data = |names: [&str; 3]| {
        let folder = folder.path().join(names.join("-"));
        tints::write(&folder, names, 4);
        Opened::to_judge(&section(folder.to_str().unwrap()).unwrap(), &mut |_, _, _| true).unwrap()
    };
    // The folder's classes are sorted: blue, green, red. The network's are red, green, blue.
    let report = classifier.evaluate(data(tints::CLASSES), 5).unwrap();
    assert_eq!((report.examples, report.accuracy), (12, 1.0));
    assert_eq!(report.classes, tints::CLASSES);
    assert_eq!(report.confusion(), [[4, 0, 0], [0, 4, 0], [0, 0, 4]]);
    // Red pictures that are named green, and the other way round.
    let report = classifier.evaluate(data(["green", "red", "blue"]), 5).unwrap();
    assert_eq!(report.confusion(), [[0, 4, 0], [4, 0, 0], [0, 0, 4]]);

    let error = classifier.evaluate(data(["rouge", "green", "blue"]), 5).unwrap_err().to_string();
    assert!(error.contains("rouge") && !error.contains('\n'), "{error}");
}

#[test]
fn a_bundle_that_was_calibrated_is_opened_in_int8() {
    if !striate_torch::int8::available() {
        return;
    }
    striate_torch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    let data = folder.path().join("data");
    tints::write(&data, tints::CLASSES, 8);
    let data = Opened::to_train(&section(data.to_str().unwrap()).unwrap(), &mut |_, _, _| true)
        .unwrap()
        .fit(&tints::preprocess())
        .unwrap();
    let open = |precision: Precision| {
        let mut options = ClassifierOptions::default();
        options.precision = precision;
        Classifier::open_with(&path, options)
    };

    convolutions().write(&path).unwrap();
    let error = open(Precision::Int8).unwrap_err().to_string();
    assert!(error.contains("calibrat") && !error.contains('\n'), "{error}");

    let mut bundle = convolutions();
    bundle.info.calibration = Some(Classifier::calibrate(&bundle, &path, &*data).unwrap());
    bundle.write(&path).unwrap();
    let (float, int8) = (open(Precision::Float32).unwrap(), open(Precision::Int8).unwrap());
    let image = DynamicImage::from(picture(1, 3));
    let input = decode_image(&image, &tints::preprocess(), &Default::default()).unwrap();
    let (exact, rounded) = (float.logits(&input).unwrap(), int8.logits(&input).unwrap());
    let error = (&exact - &rounded).abs().max().double_value(&[]);
    let range = (exact.max() - exact.min()).double_value(&[]);
    assert!(error > 0.0 && error < 0.05 * range, "{error} of {range}");
}
