"""The dataset of grasp attempts: its schema, writer, reader and loader.

| file            | one idea                                                     |
|-----------------|--------------------------------------------------------------|
| `records.py`    | the schema of one attempt; encode, decode, validate          |
| `plan.py`       | what a dataset will be, and where its files lie              |
| `writer.py`     | crash-safe shards; finish a dataset so that TFDS reads it    |
| `source.py`     | open and check datasets; random access; merge and split      |
| `samples.py`    | the table of (attempt, step) samples, without their pixels   |
| `frames.py`     | pixels of samples: decoded on demand, or once into memory    |
| `transforms.py` | crop, mirror and colour jitter of a batch                    |
| `loader.py`     | Grain: shuffled, sharded, resumable batches                  |
| `testing.py`    | synthetic attempts for tests                                 |

Nothing is imported here, so that a collecting process pays only for the records
and the writer, and never for Grain. TensorFlow is neither needed nor imported.
"""
