"""This dataset in the layouts of others.

| file         | one idea                                          |
|--------------|---------------------------------------------------|
| `lerobot.py` | LeRobot's dataset layout v3.0: Parquet and JSON   |
"""
