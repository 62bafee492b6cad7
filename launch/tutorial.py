"""The classic introduction to PyTorch's autograd, with only the import lines changed.

Run it with ``python -m distgrad.launch.tutorial``; a test does, and compares what it prints.
"""

import distgrad as torch
from distgrad import nn, optim
from distgrad.models import ResNet18_Weights, resnet18

# One training step: a forward pass, a backward pass that fills in .grad, and a step down the gradient.
model = resnet18(weights=ResNet18_Weights.DEFAULT)
data = torch.randn(1, 3, 64, 64)
labels = torch.rand(1, 1000)
prediction = model(data)
loss = (prediction - labels).sum()
loss.backward()
print(model.parameters())
sgd = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
sgd.step()

# What backward does: Q = 3a^3 - b^2 has dQ/da = 9a^2 and dQ/db = -2b.
a = torch.tensor([2.0, 3.0], requires_grad=True)
b = torch.tensor([6.0, 4.0], requires_grad=True)
Q = 3 * a**3 - b**2
print(a, Q)
external_grad = torch.tensor([1.0, 1.0])
Q.backward(gradient=external_grad)
print(9 * a**2 == a.grad)
print(-2 * b == b.grad)

# What is recorded: everything computed from a tensor that requires a gradient.
x = torch.rand(5, 5)
y = torch.rand(5, 5)
z = torch.rand((5, 5), requires_grad=True)
a = x + y
print(f"Does `a` require gradients?: {a.requires_grad}")
b = x + z
print(f"Does `b` require gradients?: {b.requires_grad}")

# Finetuning: freeze the network, give it a new classifier, and train only that.
model = resnet18(weights=ResNet18_Weights.DEFAULT)
for param in model.parameters():
    param.requires_grad = False
model.fc = nn.Linear(512, 10)
optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
for name, param in model.named_parameters():
    print(name, param.requires_grad)
prediction = model(data)
loss = (prediction - torch.rand(1, 10)).sum()
loss.backward()
optimizer.step()
