"""Object detection: an encoder becomes the network of Faster R-CNN, learns boxes, and is scored by them."""
