"""Published grasp data of others, converted to the schema of this dataset.

| file            | one idea                                                      |
|-----------------|---------------------------------------------------------------|
| `crc32c.py`     | the checksum of TFRecord, fast enough in NumPy                |
| `tfrecord.py`   | records of TFRecord files, without TensorFlow, broken ones too |
| `example.py`    | values of a tf.train.Example by their keys                     |
| `levine2016.py` | the grasping dataset that the paper's authors published       |
"""
