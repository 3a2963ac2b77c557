"""What one simulated response consumed: its usage object tells it in the provider's words, its bill charges for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True)
class Use:
    """Counts that do not overlap: tokens unless said otherwise.

    @ivar input: Text that was new to the provider; C{cached} was read from its cache; C{written} was written to it for
        five minutes, C{written_1h} for an hour.
    @ivar audio: Sound in the input, C{cached_audio} read from the cache; C{image} pictures in it.
    @ivar tool: What tools of the provider's own put before the model, which Gemini counts beside the prompt.
    @ivar output: Text that is seen; C{reasoning} is not. C{audio_output} and C{image_output} as they say.
    @ivar compaction_input: Read to shorten a conversation before it was answered; C{compaction_output} likewise.
    @ivar searches: Searches in the web; C{preview_searches} by the tool that is a preview; C{file_searches} in stored
        files; C{grounded} prompts answered with searches.
    @ivar characters: Of text made speech; C{seconds} of sound made text; C{pictures} paid by the piece; seconds of
        C{film}; C{pages} that were read.
    """

    input: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    audio: int = 0
    cached_audio: int = 0
    image: int = 0
    tool: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    image_output: int = 0
    compaction_input: int = 0
    compaction_output: int = 0
    searches: int = 0
    preview_searches: int = 0
    file_searches: int = 0
    grounded: int = 0
    characters: int = 0
    seconds: int = 0
    pictures: int = 0
    film: int = 0
    pages: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the input."""
        read = self.cached + self.cached_audio
        return self.input + self.audio + self.image + read + self.written + self.written_1h

    @property
    def completion(self) -> int:
        """All tokens of the output."""
        return self.output + self.reasoning + self.audio_output + self.image_output

    def but(self, counts: Mapping[str, int]) -> Use:
        """The same with some counts set."""
        return replace(self, **counts)

    def counts(self) -> dict[str, int]:
        """Those that are not 0, by name."""
        return {name: count for name, count in asdict(self).items() if count}


UNITS = frozenset(field.name for field in fields(Use))
