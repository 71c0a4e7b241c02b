"""The dataset of grasp attempts: its schema, writer, reader and loader.

| file                | one idea                                                   |
|---------------------|------------------------------------------------------------|
| `schema.py`         | the fields of an attempt, and what is wrong with a record  |
| `records.py`        | an attempt as bytes: encode, decode, check                 |
| `plan.py`           | what a dataset will be, and where its files lie            |
| `files.py`          | files that are whole or absent; locks                      |
| `writer.py`         | crash-safe shards by any number of writers                 |
| `finish.py`         | declare a dataset finished; move broken shards away        |
| `metadata.py`       | the files that TFDS reads                                  |
| `attempts.py`       | the table of attempts without their images                 |
| `index.py`          | that table as a file, so that opening reads no record      |
| `shards.py`         | read records in any order, or scan them                    |
| `source.py`         | open and merge datasets; random access                     |
| `splits.py`         | filter, and split by unit, object family, scene, attempt   |
| `check.py`          | verify everything in a dataset                             |
| `samples.py`        | the table of (attempt, step) samples, without their pixels |
| `frames.py`         | pixels of samples: decoded on demand, or once into memory  |
| `transforms.py`     | crop, mirror and colour jitter of an image                 |
| `order.py`          | the order of samples: shuffled, per host, mixed by weight  |
| `batches.py`        | one batch from the numbers of its samples                  |
| `loader_config.py`  | which samples, in what order, how changed                  |
| `loader.py`         | Grain: deterministic, resumable batches                    |
| `importers/`        | published datasets of others                               |
| `exporters/`        | this dataset in the layouts of others                      |

Nothing is imported here, so that a collecting process pays only for the records
and the writer, and never for Grain. TensorFlow is neither needed nor imported.
"""
