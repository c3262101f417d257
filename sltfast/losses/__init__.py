"""From a model and a batch to losses per item: next-token cross-entropy for language models, or the caller's own."""

from sltfast.losses.causality import check_causal as check_causal
from sltfast.losses.items import ItemLosses as ItemLosses
from sltfast.losses.items import LaneWeights as LaneWeights
from sltfast.losses.items import LossFn as LossFn
from sltfast.losses.items import Objective as Objective
from sltfast.losses.next_token import NextToken as NextToken
from sltfast.losses.objective import ItemLoss as ItemLoss
from sltfast.losses.objective import item_loss as item_loss
from sltfast.losses.shortened import shortened as shortened
from sltfast.losses.tokens import IGNORE_INDEX as IGNORE_INDEX
from sltfast.losses.tokens import check_tokens as check_tokens
from sltfast.losses.tokens import is_language_model as is_language_model
from sltfast.losses.tokens import token_ids as token_ids
from sltfast.losses.unembedding import Unembedding as Unembedding
from sltfast.losses.unembedding_search import find_unembedding as find_unembedding
