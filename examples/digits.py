"""Trains a convolutional network on handwritten digits, then runs it again from compiled files, without its code."""

import numpy as np
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tgc
from tgc import nn, optim
from tgc.data import batches


class Net(nn.Module):
    """Two convolutions and a linear layer, for images of 8 x 8."""

    def __init__(self):
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x):
        x = self.conv1(x).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2)
        return self.fc(x.flatten(1))


tgc.manual_seed(0)
model = Net()
opt = optim.Adam(model.parameters(), lr=1e-3)


@tgc.export("f32[batch, 1, 8, 8]")
def predict(x):
    """The probability of each digit."""
    return model(x).softmax(-1)


@tgc.export("f32[batch, 1, 8, 8]", "i64[batch]")
def train_step(x, y):
    """One step of Adam: forward, backward and the update of every weight."""
    opt.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    opt.step()
    return loss


def main():
    """Trains, prints loss and test accuracy per epoch, and classifies the test digits again with the exported files."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0)
    rng, epochs = np.random.default_rng(0), 15

    with Progress() as progress:
        task = progress.add_task("training", total=epochs * len(train_x))
        for epoch in range(1, epochs + 1):
            losses = []
            for x, y in batches(train_x, train_y, size=32, rng=rng):
                losses.append(float(train_step(tgc.tensor(x), tgc.tensor(y))))
                progress.advance(task, len(x))
            probabilities = predict(tgc.tensor(test_x)).numpy()
            accuracy = np.mean(probabilities.argmax(1) == test_y)
            progress.console.print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}  test accuracy {accuracy:.2%}")
    assert accuracy >= 0.97, "the network should have learned its digits"

    tgc.compile([predict, train_step], "build/digits", name="digits")
    library = tgc.load("build/digits")
    assert np.array_equal(library.predict(test_x), probabilities), "the files give the same bits"
    print(f"build/digits classifies the {len(test_x)} test digits the same, bit for bit, without this program's code")


if __name__ == "__main__":
    main()
