"""A clip drawn with OpenCV and NumPy from a plan, one frame after the other."""

import cv2
import numpy as np


def scale_and_crop(frames, window, flip, size):
    """The whole frame resized, then cropped: window is y, x, height, width."""
    y, x, height, width = (float(v) for v in window)
    scaled = (
        round(frames.shape[1] * size / height),
        round(frames.shape[2] * size / width),
    )
    top, left = round(y * size / height), round(x * size / width)
    clip = []
    for frame in frames:
        frame = cv2.resize(frame.astype(np.float32), scaled[::-1])
        frame = frame[top : top + size, left : left + size]
        clip.append(frame[:, ::-1] if flip else frame)
    return np.stack(clip)


def mask_of(width, height, shape, edge):
    """The outline in whole numbers: pixels exactly on it are outside."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    x = 2 * height * np.abs(x - (width - 1) // 2)
    y = 2 * width * np.abs(y - (height - 1) // 2)
    area = width * height
    inside = [x + y >= 0, x**2 + y**2 < area**2, x + y < area][shape]
    distance = [np.maximum(x, y), np.hypot(x, y), x + y][shape] / (2 * area)
    if edge < 0.5:
        slope = -1 / (0.5 - edge)
        inside = inside * np.clip(slope * distance - 0.5 * slope, 0, 1)
    return inside.astype(np.float32)


def paste(clip, plan):
    """plan: the fields of one example, without leading dimensions."""
    out = clip.copy()
    for n in plan["order"]:
        boxes = plan["boxes"][n].astype(int)
        source = plan["source"][n]
        x1, y1, x2, y2 = boxes[source]
        patch = clip[source, y1:y2, x1:x2]
        mask = mask_of(x2 - x1, y2 - y1, plan["shape"][n], plan["edge"][n])
        for t, (x1, y1, x2, y2) in enumerate(boxes):
            if not plan["visible"][n, t]:
                continue
            alpha = cv2.resize(mask, (x2 - x1, y2 - y1)) * plan["opacity"][n, t]
            alpha = alpha[..., None]
            stretched = cv2.resize(patch, (x2 - x1, y2 - y1))
            under = out[t, y1:y2, x1:x2]
            out[t, y1:y2, x1:x2] = under * (1 - alpha) + stretched * alpha
    return out


def change_colours(clip, plan):
    out = []
    for t, frame in enumerate(clip):
        if plan["hue_saturation"]:
            hsv = cv2.cvtColor(frame / 255, cv2.COLOR_RGB2HSV)
            hsv[..., 0] -= 360 * (hsv[..., 0] >= 359)
            hsv[..., 0] = np.clip(hsv[..., 0] + plan["hue"], 0, 358)
            hsv[..., 1] = np.clip(hsv[..., 1] * plan["saturation"], 0, 1)
            frame = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        frame = np.clip(frame + plan["brightness"][t], 0, 255)
        out.append(np.clip(frame * plan["contrast"][t], 0, 255))
    return np.stack(out)
