"""Reads the event files of a run with TensorBoard's own reader, or writes the fixture golden.tfevents with its own messages.

Run by hand with TensorBoard 2.21: python read.py RUN, to see what TensorBoard reads of a run's folder, and python read.py, to
write the fixture.
"""

import json
import os
import struct
import sys

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.tensorflow_stub import dtypes
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    from tensorboard.plugins.hparams import plugin_data_pb2
except ImportError:
    print("skipped: tensorboard is not installed")
    sys.exit(0)

HPARAMS = "hparams"


def read(folder):
    """What is in the event files of a run."""
    events = EventAccumulator(folder, size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}).Reload()
    tags = events.Tags()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    histograms = {}
    for tag in tags["histograms"]:
        every = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
        histograms[tag] = [(step, value.min, value.max, value.num, sum(value.bucket)) for step, value in every]
    images = {tag: [(image.step, image.width, image.height) for image in events.Images(tag)] for tag in tags["images"]}
    texts = {}
    for tag in tags["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "text":
            texts[tag] = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    sessions = {}
    for tag, content in events.PluginTagToContent(HPARAMS).items():
        data = plugin_data_pb2.HParamsPluginData.FromString(content)
        kind = data.WhichOneof("data")
        if kind == "session_start_info":
            values = data.session_start_info.hparams
            sessions[tag] = {key: getattr(values[key], values[key].WhichOneof("kind")) for key in values}
        else:
            sessions[tag] = data.session_end_info.status
    return {"scalars": scalars, "histograms": histograms, "images": images, "texts": texts, "hparams": sessions}


def metadata(plugin, content=b"", data_class=0):
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content), data_class=data_class)


def hparams(tag, **data):
    content = plugin_data_pb2.HParamsPluginData(**data).SerializeToString(deterministic=True)
    return Summary.Value(tag=tag, metadata=metadata(HPARAMS, content))


def golden():
    """Every kind of event once, as the test in src/tensorboard/event.rs writes them."""
    text = TensorProto(dtype=dtypes.string.as_datatype_enum, string_val=[b"[train]"])
    text.tensor_shape.dim.add(size=1)
    histogram = HistogramProto(
        min=-1, max=3, num=4, sum=2.5, sum_squares=11.25, bucket_limit=[1, 3], bucket=[3, 1]
    )
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=1.5)
    start.hparams["train.drop_last"].bool_value = False
    start.hparams["train.lr"].number_value = 0.25
    start.hparams["optimizer.kind"].string_value = "sgd"
    start_value = hparams("_hparams_/session_start_info", session_start_info=start)
    end = plugin_data_pb2.SessionEndInfo(status=1, end_time_secs=2.5)
    end_value = hparams("_hparams_/session_end_info", session_end_info=end)
    image = Summary.Image(height=2, width=3, colorspace=3, encoded_image_string=b"\x89PNG")
    summary = lambda *values: Summary(value=values)
    return [
        Event(wall_time=1.5, file_version="brain.Event:2"),
        Event(wall_time=1.5, step=300, session_log=SessionLog(status=SessionLog.START)),
        Event(wall_time=1.5, step=300, summary=summary(Summary.Value(tag="train/loss", simple_value=0.5), Summary.Value(tag="lr"))),
        Event(wall_time=1.5, step=300, summary=summary(Summary.Value(tag="weights/fc", histo=histogram))),
        Event(wall_time=1.5, step=300, summary=summary(Summary.Value(tag="filters", image=image))),
        Event(wall_time=1.5, summary=summary(Summary.Value(tag="recipe", tensor=text, metadata=metadata("text", data_class=2)))),
        Event(wall_time=1.5, summary=summary(start_value)),
        Event(wall_time=1.5, summary=summary(end_value)),
    ]


def record(message):
    length = struct.pack("<Q", len(message))
    checksum = lambda data: struct.pack("<I", masked_crc32c(data))
    return length + checksum(length) + message + checksum(message)


if len(sys.argv) > 1:
    print(json.dumps(read(sys.argv[1]), indent=1))
else:
    events = golden()
    # A value of zero is told apart from none.
    events[2].summary.value[1].simple_value = 0
    with open(os.path.join(os.path.dirname(__file__), "golden.tfevents"), "wb") as file:
        for event in events:
            file.write(record(event.SerializeToString(deterministic=True)))
