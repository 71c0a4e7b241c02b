"""Pictures and videos: `video`, `servo_video`, `films`, `sheets`, `window`, `plots`.

`video` records attempts and overlays, `servo_video` real-time servoing, `films` chooses
what the report shows, `sheets` sets labelled pictures in a grid, `window` is MuJoCo's
viewer, `plots` draws figures.
"""
