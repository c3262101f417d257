"""What transformers reads of masks is answered in our forwards alone, and changes no loss."""

import threading

import pytest
import torch
from hugging_face import padded, tiny
from transformers import masking_utils

from sltfast.losses import item_loss
from sltfast.losses.mask_reads import masks_unread

PACKED = torch.tensor([[0, 1, 2, 0, 1]])


def test_only_forwards_of_this_thread_are_answered():
    own = (masking_utils.find_packed_sequence_indices, masking_utils.is_tracing)
    elsewhere = []
    with masks_unread(), masks_unread():
        assert masking_utils.find_packed_sequence_indices(PACKED) is None
        ask = threading.Thread(target=lambda: elsewhere.append(masking_utils.find_packed_sequence_indices(PACKED)))
        ask.start()
        ask.join()
        assert masking_utils.is_tracing(torch.empty(1, device="meta"))
        assert not masking_utils.is_tracing(torch.empty(1))
    assert elsewhere[0].tolist() == [[0, 0, 0, 1, 1]]
    assert (masking_utils.find_packed_sequence_indices, masking_utils.is_tracing) == own


def test_the_originals_come_back_after_an_error():
    own = masking_utils.find_packed_sequence_indices
    with pytest.raises(KeyError), masks_unread():
        raise KeyError
    assert masking_utils.find_packed_sequence_indices is own


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Mistral", "GPTNeoX"])
@pytest.mark.parametrize("data", [padded(left=False), padded()["input_ids"]], ids=["padded", "whole"])
def test_losses_stay(name, data, monkeypatch):
    """Where masks are never read as on a GPU, and where transformers reads them as it likes."""
    model = tiny(name)
    loss = item_loss(model, None)
    with torch.no_grad():
        ids, given, targets, weights = loss.function.question(data)
        logits = model(ids, **given).logits[:, :-1]
        plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        monkeypatch.setattr("sltfast.losses.mask_reads.HOST", "nowhere")
        values = loss(model, data).values
    counted = torch.ones_like(plain, dtype=torch.bool) if weights is None else weights
    torch.testing.assert_close(values[counted], plain[counted], rtol=1e-12, atol=1e-12)  # float64 in another order
