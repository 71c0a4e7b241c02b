"""Crop, mirror and colour jitter, against what they must do by definition."""

import numpy as np
import pytest

from data_pipeline import transforms


@pytest.fixture
def image(rng):
  return rng.integers(0, 256, (12, 10, 3), np.uint8)


def test_random_crops_reach_every_corner_and_none_beyond(rng):
  offsets = transforms.random_offsets(rng, 2000, frame_size=7, crop_size=4)
  assert offsets.min() == 0 and offsets.max() == 3
  assert len(np.unique(offsets, axis=0)) == 16


def test_a_crop_of_the_whole_frame_does_not_move(rng):
  assert not transforms.random_offsets(rng, 10, 64, 64).any()


def test_the_centre_crop_is_in_the_centre(image):
  offset = transforms.centre_offsets(1, 512, 472)[0]
  assert offset.tolist() == [20, 20]
  cropped = transforms.crop(image, np.array([2, 1]), 8)
  np.testing.assert_array_equal(cropped, image[2:10, 1:9])


def test_mirroring_twice_changes_nothing(image):
  mirrored = transforms.mirror_image(image)
  np.testing.assert_array_equal(mirrored[:, 0], image[:, -1])
  np.testing.assert_array_equal(transforms.mirror_image(mirrored), image)
  command = np.array([0.1, 0.2, 0.3, np.sin(0.4), np.cos(0.4)], np.float32)
  mirrored = transforms.mirror_command(command)
  np.testing.assert_allclose(mirrored, [0.1, -0.2, 0.3, np.sin(-0.4), np.cos(-0.4)])
  np.testing.assert_array_equal(transforms.mirror_command(mirrored), command)


def test_neutral_parameters_leave_colours_alone(image):
  same = transforms.jitter_colours(image, np.array([0, 1, 1]))
  np.testing.assert_array_equal(same, image)


def test_brightness_adds(image):
  changed = transforms.jitter_colours(image, np.array([0.2, 1, 1]))
  np.testing.assert_array_equal(changed, np.minimum(image.astype(int) + 51, 255))


def test_contrast_scales_about_middle_grey():
  image = np.array([[[100, 150, 255]]], np.uint8)
  changed = transforms.jitter_colours(image, np.array([0, 0.5, 1]))
  np.testing.assert_allclose(changed[0, 0], [113.75, 138.75, 191.25], atol=0.51)


def test_no_saturation_is_grey(image):
  changed = transforms.jitter_colours(image, np.array([0, 1, 0]))
  grey = image @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(changed, np.repeat(grey[..., None], 3, -1), atol=0.51)


def test_drawn_parameters_stay_in_their_ranges(rng):
  jitter = transforms.ColourJitter(brightness=0.1, contrast=0.3)
  assert not jitter.is_off
  brightness, contrast, saturation = jitter.draw(rng, 1000).T
  assert 0.09 < np.abs(brightness).max() <= 0.1
  assert 0.28 < np.abs(contrast - 1).max() <= 0.3
  np.testing.assert_array_equal(saturation, 1)


def test_no_jitter_is_off_and_too_much_is_refused():
  assert transforms.ColourJitter().is_off
  with pytest.raises(ValueError, match="contrast is 1.5, expected 0 <= contrast < 1"):
    transforms.ColourJitter(contrast=1.5)
