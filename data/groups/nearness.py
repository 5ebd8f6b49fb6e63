"""What other modules still take from here."""

from data.groups.pictures import picture_hash as picture_hash
from data.groups.words import jaccard as jaccard
