"""Recurrent networks: an embedding, a recurrent layer, a classifier, as for the paper's text classification."""

from __future__ import annotations

import torch
from torch import nn

from tests.graph.nets.case import Case


class Recurrent(nn.Module):
    def __init__(self, kind: type, last: bool = True, **options: object) -> None:
        super().__init__()
        self.embed, self.rnn, self.last = nn.Embedding(20, 12), kind(12, 10, **options), last
        width = (self.rnn.proj_size or self.rnn.hidden_size) * (2 if self.rnn.bidirectional else 1)
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out, _ = self.rnn(self.embed(tokens))
        return self.head(out[:, -1] if self.last else out)


class LastState(nn.Module):
    """Classifies the last hidden states of both directions, which are one dimension of a stacked tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 12), nn.LSTM(12, 10, 2, bidirectional=True)
        self.head = nn.Linear(20, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        _, (h, _) = self.rnn(self.embed(tokens))
        return self.head(torch.cat([h[-2], h[-1]], 1))


class Cells(nn.Module):
    def __init__(self, cell: type) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(20, 12), cell(12, 10), nn.Linear(10, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        state = None
        for x in self.embed(tokens).unbind(1):
            state = self.cell(x, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class OwnState(nn.Module):
    """An LSTM whose first states are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 10, batch_first=True), nn.Linear(10, 4)
        self.h, self.c = nn.Parameter(torch.randn(1, 1, 10)), nn.Parameter(torch.randn(1, 1, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.h.expand(-1, len(x), -1).contiguous(), self.c.expand(-1, len(x), -1).contiguous()
        return self.head(self.rnn(x, state)[0])


class Packed(Recurrent):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = nn.utils.rnn.pack_padded_sequence(self.embed(tokens), torch.tensor([4, 2], device="cpu"), batch_first=True)
        out, _ = self.rnn(x)
        return self.head(nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0])


def _tokens() -> tuple:
    return (torch.randint(0, 20, (2, 4)),)


CASES = [
    Case("RNN", lambda: Recurrent(nn.RNN, batch_first=True), _tokens),
    Case("RNN with relu, without biases", lambda: Recurrent(nn.RNN, nonlinearity="relu", bias=False), _tokens),
    Case("GRU", lambda: Recurrent(nn.GRU, batch_first=True), _tokens),
    Case("GRU, two layers, bidirectional", lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), _tokens),
    Case("LSTM", lambda: Recurrent(nn.LSTM, batch_first=True), _tokens),
    Case("LSTM, three layers", lambda: Recurrent(nn.LSTM, num_layers=3, dropout=0.1), _tokens),
    Case("LSTM, bidirectional", lambda: Recurrent(nn.LSTM, bidirectional=True, batch_first=True, last=False), _tokens),
    Case("LSTM with projection", lambda: Recurrent(nn.LSTM, proj_size=6, num_layers=2), _tokens),
    Case("LSTM with projection, bidirectional", lambda: Recurrent(nn.LSTM, proj_size=6, bidirectional=True), _tokens),
    Case("LSTM, last states", LastState, _tokens),
    Case("LSTM with states as parameters", OwnState, lambda: (torch.randn(2, 5, 3),)),
    Case("LSTM over packed sequences", lambda: Packed(nn.LSTM, batch_first=True), _tokens),
    Case("RNN cell", lambda: Cells(nn.RNNCell), _tokens),
    Case("GRU cell", lambda: Cells(nn.GRUCell), _tokens),
    Case("LSTM cell", lambda: Cells(nn.LSTMCell), _tokens),
]
