"""Prompts are the same tokens on both sides, responses end with the end token, and nothing is lost unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from transformers import PreTrainedTokenizerFast

from prefero.data.arrange import one_cycle
from prefero.data.chat import Writing
from prefero.data.examples import Example, Response
from prefero.data.formats import load_examples
from prefero.data.tokenize import TokenDataset, shorter_prompts, tokenize
from prefero.data.trie import TokenTrie, unique_tokens
from prefero.errors import PreferoError
from tests.data.conftest import CHATML, FORGETFUL, STRICT, MakeTokenizer

PAIR = ("chosen", "rejected")

Tokenizer = PreTrainedTokenizerFast

text = st.text(st.characters(codec="utf-8", exclude_characters="<[|"), max_size=40)
spoken = text.filter(str.strip)


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


CHAT = [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello!"), user("What is 2+2?")]


def pair(prompt: Any, chosen: Any, rejected: Any, **columns: Any) -> Example:
    prompt = tuple(prompt) if isinstance(prompt, list) else prompt
    sides = (tuple(side) if isinstance(side, list) else side for side in (chosen, rejected))
    responses = tuple(Response(side, role) for side, role in zip(sides, PAIR, strict=True))
    return Example(prompt, responses, columns, origin="rows, row 1")


def run(tokenizer: Tokenizer, *examples: Example, **options: Any) -> TokenDataset:
    return tokenize(examples, tokenizer, **{"roles": PAIR, **options})


def decoded(tokenizer: Tokenizer, dataset: TokenDataset, example: int = 0) -> list[tuple[str, str]]:
    cells = dataset[example].cells
    return [(tokenizer.decode(cell.context), tokenizer.decode(cell.response)) for cell in cells]


class TestPlainText:
    @given(prompt=text, chosen=spoken, rejected=spoken)
    def test_prompts_are_token_identical_and_text_comes_back(
        self, base: Tokenizer, prompt: str, chosen: str, rejected: str
    ) -> None:
        assume(chosen != rejected)
        sides = run(base, pair(prompt, chosen, rejected))[0].cells
        assert sides[0].context is sides[1].context
        cut, sequences = [], []
        for cell, response in zip(sides, (chosen, rejected), strict=True):
            assert cell.context.dtype == cell.response.dtype == np.int64
            whole = base(prompt + response, return_offsets_mapping=True)
            ids = np.concatenate([cell.context, cell.response])
            assert ids.tolist() == [*whole["input_ids"], base.eos_token_id]
            sequences.append(ids.tolist())
            ends = [end for _, end in whole["offset_mapping"]]
            cut.append(next(at for at, end in enumerate(ends) if end > len(prompt)))
            scored = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
            assert scored.tolist() == [at >= cut[-1] for at in range(len(cell.context), len(ids))]
        # "re" and "0" may be other tokens than "r" and "eg": only what is the same is shared
        same = [one == other for one, other in zip(*sequences, strict=False)]
        assert len(sides[0].context) == min(*cut, [*same, False].index(False))

    def test_without_bos_an_empty_prompt_takes_the_end_token(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer()
        dataset = run(tokenizer, pair("", "a", "b"), pair("x", "a", "b"))
        assert decoded(tokenizer, dataset)[0] == ("</s>", "a</s>")
        assert decoded(tokenizer, dataset, 1)[0] == ("x", "a</s>")

    @pytest.mark.parametrize("around", ["<s> $A", "<s> $A </s>"])
    def test_a_tokenizer_without_the_letter_a_begins_with_its_start_token(self, around: str) -> None:
        from tokenizers import Tokenizer as Backend, models, processors, trainers

        backend = Backend(models.BPE())
        trainer = trainers.BpeTrainer(vocab_size=12, special_tokens=["<s>", "</s>"], show_progress=False)
        backend.train_from_iterator(["你好世界", "红色蓝色"], trainer)
        backend.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        cell = run(tokenizer, pair("你好", "世界", "红色"))[0].cells[0]
        whole = [0, *tokenizer("你好世界", add_special_tokens=False)["input_ids"], 1]
        assert [*cell.context, *cell.response] == whole

    def test_a_tokenizer_that_appends_its_end_token_does_not_end_the_prompt(
        self, make_tokenizer: MakeTokenizer
    ) -> None:
        from tokenizers import processors

        tokenizer = make_tokenizer(bos=True)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        assert decoded(tokenizer, run(tokenizer, pair("x", "a", "b")))[0] == ("<s>x", "a</s>")

    def test_a_cut_off_response_has_no_end_token(self, base: Tokenizer) -> None:
        example = Example("p", (Response("a", "chosen", ended=False), Response("b", "rejected")))
        assert [response for _, response in decoded(base, run(base, example))] == ["a", "b</s>"]

    def test_a_tokenizer_set_to_pad_and_truncate_still_gives_every_token(self, base: Tokenizer) -> None:
        base.backend_tokenizer.enable_truncation(2)
        base.backend_tokenizer.enable_padding(length=50)
        dataset = run(base, pair("What is the capital of France?", "Paris, of course", "It"))
        assert decoded(base, dataset)[0] == ("<s>What is the capital of France?", "Paris, of course</s>")


class TestTranscripts:
    def test_a_model_without_a_template_reads_the_original(self, base: Tokenizer) -> None:
        turns = "\n\nHuman: Hi\n\nAssistant: Hello \n\nHuman:  two  spaces\n\nAssistant:"
        (row,) = load_examples([{"chosen": f"{turns} Yes.", "rejected": f"{turns} No."}])
        dataset = run(base, row)
        assert decoded(base, dataset) == [(f"<s>{turns}", " Yes.</s>"), (f"<s>{turns}", " No.</s>")]

    def test_own_prompts_stay_apart(self, base: Tokenizer) -> None:
        turns = "\n\nHuman: Hi\n\nAssistant:"
        rows = [{"chosen": f"{turns} Yes.", "rejected": f"{turns} No.\n\nAssistant: Maybe."}]
        dataset = run(base, *load_examples(rows))
        assert decoded(base, dataset) == [
            (f"<s>{turns}", " Yes.</s>"),
            (f"<s>{turns} No.\n\nAssistant:", " Maybe.</s>"),
        ]

    def test_system_and_tool_turns(self, base: Tokenizer) -> None:
        example = pair([*CHAT, assistant("Let me see."), {"role": "tool", "content": "4"}], "4", "5")
        (context, response), _ = decoded(base, run(base, example))
        assert context == (
            "<s>Be kind.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: What is 2+2?"
            "\n\nAssistant: Let me see.\n\nTool: 4\n\nAssistant:"
        )
        assert response == " 4</s>"

    def test_an_empty_response_is_its_end_token(self, base: Tokenizer) -> None:
        dataset = run(base, pair(CHAT, "", "5"))
        assert decoded(base, dataset)[0][1] == "</s>"
        assert dataset.summary.empty_responses == 1

    def test_steps_go_on_in_the_turn(self, base: Tokenizer) -> None:
        rows = [{"prompt": "2+2+2=", "initial_reason_steps": "Step 1: 4.\n", "chosen": "6", "rejected": "7"}]
        dataset = run(base, *load_examples(rows))
        assert decoded(base, dataset)[0] == ("<s>\n\nHuman: 2+2+2=\n\nAssistant: Step 1: 4.\n", "6")

    def test_tools_need_a_template(self, base: Tokenizer) -> None:
        example = Example(
            (user("Hi"),), pair("", "a", "b").responses, tools=({"name": "add"},), origin="o, row 3"
        )
        with pytest.raises(PreferoError, match=r"o, row 3: the row has tools.*no chat template"):
            run(base, example)
        call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
        with pytest.raises(PreferoError, match=r"rows, row 1: a message of assistant holds more than text"):
            run(base, pair(CHAT, [call], [assistant("5")]))


class TestChatTemplates:
    @pytest.mark.oldest
    def test_prompt_and_response_are_the_rendered_whole(self, chatml: Tokenizer, llama: Tokenizer) -> None:
        for tokenizer in (chatml, llama):
            dataset = run(tokenizer, pair(CHAT, [assistant("It is 4.")], [assistant("It is 5.")]))
            prompt = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
            for content, (context, response) in zip("45", decoded(tokenizer, dataset), strict=True):
                assert context == prompt
                whole = [*CHAT, assistant(f"It is {content}.")]
                assert context + response == tokenizer.apply_chat_template(whole, tokenize=False).rstrip()
            assert dataset.summary.notes == ()

    @given(prompt=spoken, chosen=text, rejected=text)
    def test_prompts_are_token_identical(
        self, chatml: Tokenizer, prompt: str, chosen: str, rejected: str
    ) -> None:
        assume(chosen != rejected)
        one, other = run(chatml, pair([user(prompt)], chosen, rejected))[0].cells
        np.testing.assert_array_equal(one.context, other.context)
        assert chatml.decode(one.context) == f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        assert chatml.decode(one.response) == f"{chosen}<|im_end|>"

    def test_bos_comes_from_the_template_alone(self, llama: Tokenizer) -> None:
        (cell, _) = run(llama, pair(CHAT, "4", "5"))[0].cells
        assert list(cell.context).count(llama.bos_token_id) == 1

    def test_a_text_prompt_is_one_user_turn(self, chatml: Tokenizer) -> None:
        dataset = run(chatml, pair("2+2=", "4", "5"))
        turn = "<|im_start|>user\n2+2=<|im_end|>\n<|im_start|>assistant\n"
        assert decoded(chatml, dataset)[0] == (turn, "4<|im_end|>")
        assert "one user turn" in dataset[0].notes[0]
        assert "one user turn" in dataset.summary.notes[0]

    @pytest.mark.parametrize(
        ("turn", "note"),
        [
            ({"weight": 0}, "does not write 'weight' of messages"),
            ({"mess": "x"}, "does not write 'mess' of messages"),
            ({"role": "customer"}, "does not know the role 'customer'"),
            ({"content": '[{"role": "user", "content": "Hi"}]'}, "spells a list of messages"),
        ],
    )
    def test_what_a_template_does_not_read_is_told(
        self, chatml: Tokenizer, turn: dict[str, Any], note: str
    ) -> None:
        dataset = run(chatml, pair([{**user("2+2="), **turn}], "4", "5"))
        assert any(note in told for told in dataset[0].notes)
        assert any(note in told for told in dataset.summary.notes)

    def test_the_template_can_be_turned_off(self, chatml: Tokenizer) -> None:
        dataset = run(chatml, pair("2+2=", "4", "5"), writing=Writing("none"))
        assert decoded(chatml, dataset)[0] == ("2+2=", "4<|im_end|>")

    def test_marks_that_a_response_brings_stand_once(self, chatml: Tokenizer) -> None:
        dataset = run(chatml, pair("2+2=", "4<|im_end|>", "<|im_start|>assistant\n5<|im_end|>\n"))
        assert [response for _, response in decoded(chatml, dataset)] == ["4<|im_end|>", "5<|im_end|>"]
        assert any("which stand once" in note for note in dataset[0].notes)

    def test_an_unknown_way_to_cut_is_refused(self, chatml: Tokenizer) -> None:
        with pytest.raises(PreferoError, match=r"too_long is 'truncate'.* expected one of cut_response"):
            run(chatml, pair("2+2=", "4", "5"), too_long="truncate")

    def test_the_template_can_be_another_one(self, chatml: Tokenizer, tmp_path: Path) -> None:
        file = tmp_path / "other.jinja"
        file.write_text("{% for m in messages %}({{ m.role }}){{ m.content }}<|eot|>{% endfor %}(assistant)")
        with pytest.raises(PreferoError, match=r"cannot be read .*: template is auto, none, or a file"):
            run(chatml, pair(CHAT, "4", "5"), writing=Writing(str(file) + "x"))
        file.write_text(
            "{% for m in messages %}({{ m.role }}){{ m.content }}<|eot|>{% endfor %}"
            "{% if add_generation_prompt %}(assistant){% endif %}"
        )
        dataset = run(chatml, pair([user("2+2=")], "4", "5"), writing=Writing(str(file)))
        assert decoded(chatml, dataset)[0] == ("(user)2+2=<|eot|>(assistant)", "4<|eot|>")

    def test_text_that_went_through_the_template_is_taken_as_it_is(self, chatml: Tokenizer) -> None:
        turn = "<|im_start|>user\n2+2=<|im_end|>\n<|im_start|>assistant\n"
        dataset = run(chatml, pair(turn, "4<|im_end|>", "5"))
        assert decoded(chatml, dataset) == [(turn, "4<|im_end|>"), (turn, "5<|im_end|>")]
        assert any("taken as it is" in note for note in dataset[0].notes)

    def test_a_cut_off_response_has_no_end_of_turn(self, chatml: Tokenizer, llama: Tokenizer) -> None:
        for tokenizer in (chatml, llama):
            example = Example(
                tuple(CHAT), (Response("It is", "chosen", ended=False), Response("5", "rejected"))
            )
            assert decoded(tokenizer, run(tokenizer, example))[0][1] == "It is"

    def test_a_started_turn_is_continued(self, chatml: Tokenizer, llama: Tokenizer) -> None:
        for tokenizer in (chatml, llama):
            (context, response), _ = decoded(
                tokenizer, run(tokenizer, pair([*CHAT, assistant("It is ")], "4.", "5."))
            )
            whole = [*CHAT, assistant("It is 4.")]
            assert context.endswith("It is")  # a space before a word is the word's
            assert context + response == tokenizer.apply_chat_template(whole, tokenize=False).rstrip()

    def test_tools_and_options_reach_the_template(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer(CHATML, eos_token="<|im_end|>")
        example = Example(
            (user("Hi"),),
            pair("", "a", "b").responses,
            tools=({"name": "add"},),
            template_options={"quiet": True},
        )
        dataset = run(tokenizer, example)
        (context, response), _ = decoded(tokenizer, dataset)
        assert context.startswith('<|im_start|>system\nTools: [{"name": "add"}]<|im_end|>\n')
        assert context.endswith("<|im_start|>assistant\n")
        assert response == "a<|im_end|>"
        assert "the generation prompt opens with '(quiet)'" in dataset.summary.notes[0]

    def test_a_thought_that_the_generation_prompt_opens(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer(FORGETFUL, eos_token="<|eot|>")
        dataset = run(tokenizer, pair([user("Hi")], "Hello", "<think>Hm</think>Bye"))
        chosen, rejected = decoded(tokenizer, dataset)
        assert chosen == ("[user]Hi[assistant]", "Hello<|eot|>")
        assert rejected == ("[user]Hi[assistant]", "<think>Hm</think>Bye<|eot|>")
        scored = dataset[0].cells[1].scored
        assert scored is not None
        assert tokenizer.decode(dataset[0].cells[1].response[~scored]) == "<think>"
        assert any("the generation prompt opens" in note for note in dataset.summary.notes)

    def test_an_empty_thought_that_the_template_closes_belongs_to_the_response(
        self, make_tokenizer: MakeTokenizer
    ) -> None:
        opens_a_thought = (
            "{% for m in messages %}[{{ m.role }}]{{ '<think></think>' if m.role == 'assistant' }}"
            "{{ m.content }}<|eot|>{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
        )
        tokenizer = make_tokenizer(opens_a_thought, eos_token="<|eot|>")
        dataset = run(tokenizer, pair([user("Hi")], "a", "b"))
        (context, response), _ = decoded(tokenizer, dataset)
        assert context == "[user]Hi<|eot|>[assistant]<think>"
        assert response == "</think>a<|eot|>"
        assert r"the generation prompt opens with '<think>'" in dataset.summary.notes[0]

    @pytest.mark.parametrize(
        ("chosen", "written"),
        [
            ("Hm.\n</think>\n\na", "[assistant]<think>\nHm.\n</think>\n\na<|eot|>"),
            ("Use <think> here.", "[assistant]Use <think> here.<|eot|>"),
        ],
    )
    def test_an_answer_may_close_the_thought_that_the_prompt_opens_or_speak_of_its_mark(
        self, make_tokenizer: MakeTokenizer, chosen: str, written: str
    ) -> None:
        opens_a_thought = (
            "{% for m in messages %}[{{ m.role }}]"
            "{{ '<think></think>' if m.role == 'assistant' and 'think>' not in m.content }}"
            "{{ m.content }}<|eot|>{% endfor %}{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
        )
        tokenizer = make_tokenizer(opens_a_thought, eos_token="<|eot|>")
        dataset = run(tokenizer, pair([user("Hi")], chosen, "b"))
        (context, response), (_, other) = decoded(tokenizer, dataset)
        assert context + response == f"[user]Hi<|eot|>{written}"
        assert other.endswith("</think>b<|eot|>")

    def test_a_template_without_an_end_gets_the_tokenizers(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
        assert decoded(tokenizer, run(tokenizer, pair([user("Hi")], "a", "b")))[0][1] == "[assistant]a</s>"

    def test_a_refusing_template_names_the_row(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer(STRICT, eos_token="<|eot|>")
        with pytest.raises(PreferoError, match=r"rows, row 1: the chat template refuses.*alternate.*Correct"):
            run(tokenizer, pair([user("a"), user("b")], "c", "d"))
        repeated = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
        run(tokenizer, *load_examples([{"chosen": f"{repeated} e", "rejected": f"{repeated} f"}]))

    def test_what_trl_renders(self, chatml: Tokenizer, llama: Tokenizer) -> None:
        from trl import data_utils

        row = {"prompt": CHAT, "chosen": [assistant("It is 4.")], "rejected": [assistant("It is 5.")]}
        for tokenizer in (chatml, llama):
            theirs = data_utils.apply_chat_template(row, tokenizer)
            ours = decoded(tokenizer, run(tokenizer, *load_examples([row])))
            # generation stops at the end mark: the line end that TRL scores behind it is left out
            sides = [(theirs["prompt"], theirs[side].rstrip("\n")) for side in ("chosen", "rejected")]
            assert ours == sides


class TestSeveralTurns:
    TURNS = (assistant("Which?"), user("2+2"), assistant("4"))

    def scored_text(self, tokenizer: Tokenizer, dataset: TokenDataset) -> tuple[str, str]:
        cell = dataset[0].cells[0]
        assert cell.scored is not None and cell.scored.shape == cell.response.shape
        return tokenizer.decode(cell.response), tokenizer.decode(cell.response[cell.scored])

    def test_partner_turns_are_holes(self, base: Tokenizer, chatml: Tokenizer) -> None:
        example = pair([user("Add.")], list(self.TURNS), [assistant("5")])
        whole, scored = self.scored_text(chatml, run(chatml, example))
        assert scored == "Which?<|im_end|>4<|im_end|>"
        rendered = chatml.apply_chat_template([user("Add."), *self.TURNS], tokenize=False)
        assert rendered.rstrip().endswith(whole)
        whole, scored = self.scored_text(base, run(base, example))
        assert (whole, scored) == (" Which?\n\nHuman: 2+2\n\nAssistant: 4</s>", " Which? 4</s>")

    def test_earlier_turns_of_the_assistant_can_be_scored_too(self, chatml: Tokenizer) -> None:
        example = pair(CHAT, "4", "5")
        whole = chatml.apply_chat_template([*CHAT, assistant("4")], tokenize=False).rstrip()
        dataset = run(chatml, example, writing=Writing(score="all_assistant"))
        context, response = decoded(chatml, dataset)[0]
        assert context + response == whole
        assert self.scored_text(chatml, dataset)[1] == "Hello!<|im_end|>4<|im_end|>"
        last = run(chatml, example)
        assert decoded(chatml, last)[0][1] == "4<|im_end|>"

    def test_earlier_turns_of_each_side_are_scored_where_they_differ(
        self, base: Tokenizer, chatml: Tokenizer
    ) -> None:
        sides = {"chosen": ("B1.", "D."), "rejected": ("B2.", "E.")}
        text = "\n\nHuman: A?\n\nAssistant: {}\n\nHuman: C?\n\nAssistant: {}"
        transcripts = {side: text.format(*said) for side, said in sides.items()}
        messages = {
            side: [user("A?"), assistant(first), user("C?"), assistant(last)]
            for side, (first, last) in sides.items()
        }
        for tokenizer, end in ((base, "</s>"), (chatml, "<|im_end|>")):
            read = [
                run(tokenizer, *load_examples([row]), writing=Writing(score="all_assistant"))
                for row in (transcripts, messages)
            ]
            for one, other, said in zip(read[0][0].cells, read[1][0].cells, sides.values(), strict=True):
                np.testing.assert_array_equal(one.context, other.context)
                np.testing.assert_array_equal(one.response, other.response)
                assert one.scored is not None and other.scored is not None
                np.testing.assert_array_equal(one.scored, other.scored)
                scored = tokenizer.decode(one.response[one.scored]).replace(end, "").replace(" ", "")
                assert scored == "".join(said)
            assert read[0][0].cells[0].context is read[0][0].cells[1].context

    def test_earlier_turns_of_another_prompt_are_its_own(self, chatml: Tokenizer) -> None:
        example = pair([user("A?"), assistant("B"), user("C?")], "D", "E")
        example = replace(example, prompts={"corrupted": (user("A?"), assistant("B"), user("X?"))})
        dataset = run(
            chatml, example, writing=Writing(score="all_assistant"), views={"corrupted": ("chosen",)}
        )
        (cell,) = dataset[0].views["corrupted"]
        turns = [user("A?"), assistant("B"), user("X?"), assistant("D")]
        whole = chatml.apply_chat_template(turns, tokenize=False).rstrip()
        assert chatml.decode(np.concatenate([cell.context, cell.response])) == whole
        assert chatml.decode(cell.response[cell.scored]) == "B<|im_end|>D<|im_end|>"

    def test_a_response_that_another_speaker_begins(self, base: Tokenizer, chatml: Tokenizer) -> None:
        example = pair([user("Hi"), assistant("Yes?")], [user("2+2"), assistant("4")], [assistant("Bye")])
        dataset = run(chatml, example)
        prompt = chatml.apply_chat_template([user("Hi"), assistant("Yes?")], tokenize=False)
        assert [context for context, _ in decoded(chatml, dataset)] == [prompt, prompt]
        assert self.scored_text(chatml, dataset)[1] == "4<|im_end|>"
        whole, scored = self.scored_text(base, run(base, example))
        assert (whole, scored) == ("\n\nHuman: 2+2\n\nAssistant: 4</s>", " 4</s>")
        (_, (_, other)) = decoded(base, run(base, example))
        assert other == "\n\nAssistant: Bye</s>"

    def test_a_thought_that_only_the_generation_prompt_opens(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer(FORGETFUL, eos_token="<|eot|>")
        dataset = run(tokenizer, pair([user("Hi")], list(self.TURNS), [assistant("5")]))
        whole, scored = self.scored_text(tokenizer, dataset)
        assert whole == "Which?<|eot|>[user]2+2[assistant]4<|eot|>"
        assert scored == "Which?<|eot|>4<|eot|>"

    def test_a_template_that_forgets_turns_is_refused(self, make_tokenizer: MakeTokenizer) -> None:
        tokenizer = make_tokenizer(
            "{% for m in messages[-2:] %}[{{ m.role }}]{{ m.content }}<|eot|>{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}",
            eos_token="<|eot|>",
        )
        with pytest.raises(PreferoError, match="several turns, and the chat template changes earlier"):
            run(tokenizer, pair([user("Hi")], list(self.TURNS), [assistant("5")]))

    def test_a_response_cut_down_to_its_partner_is_left_out(self, base: Tokenizer) -> None:
        turns = [user("a long question " * 9), assistant("4")]
        with pytest.raises(PreferoError, match="leaves no token to score: 1,"):
            run(base, pair([user("Hi"), assistant("Yes?")], turns, [assistant("no")]), max_length=20)


conversations = st.builds(
    lambda system, turns, last: (
        ([{"role": "system", "content": system}] if system else [])
        + [message for question, answer in turns for message in (user(question), assistant(answer))]
        + [user(last)]
    ),
    st.sampled_from(["", "Be kind and brief."]),
    st.lists(st.tuples(spoken, spoken), max_size=5),
    spoken,
)


class TestTruncation:
    @given(prompt=conversations, sides=st.lists(spoken, min_size=2, max_size=2), limit=st.integers(2, 80))
    def test_invariants(
        self, chatml: Tokenizer, prompt: list[dict[str, Any]], sides: list[str], limit: int
    ) -> None:
        example = Example(tuple(prompt), tuple(map(Response, sides)), origin="row")
        whole = run(chatml, example, roles=())[0].cells
        dataset = run(chatml, example, roles=(), max_length=limit, too_long="keep_recent_prompt")
        cells = dataset[0].cells
        assert cells[0].context is cells[1].context
        assert len(cells[0].context) >= 1
        for before, after in zip(whole, cells, strict=True):
            assert len(after.context) + len(after.response) <= limit
            assert len(after.response) == min(len(before.response), limit - 1)
            np.testing.assert_array_equal(after.response, before.response[: len(after.response)])
            tail = before.context[len(before.context) - min(len(after.context), 3) :]
            np.testing.assert_array_equal(after.context[-len(tail) :], tail)
        lost = len(whole[0].context) - len(cells[0].context)
        lost += sum(len(b.response) - len(a.response) for b, a in zip(whole, cells, strict=True))
        assert dataset[0].truncated == dataset.summary.truncated_tokens == lost
        fits = max(len(cell.context) + len(cell.response) for cell in whole) <= limit
        assert (lost == 0) == fits

    def test_oldest_turns_go_first_and_the_system_turn_stays(self, chatml: Tokenizer) -> None:
        turns = [m for n in range(6) for m in (user(f"question {n}"), assistant(f"answer {n}"))]
        prompt = [{"role": "system", "content": "Be kind."}, *turns, user("last question")]
        full = len(run(chatml, pair(prompt, "4", "5"))[0].cells[0].context)
        dataset = run(chatml, pair(prompt, "4", "5"), max_length=full - 10)
        context, _ = decoded(chatml, dataset)[0]
        kept = [[prompt[0], *prompt[at:]] for at in range(1, len(prompt), 2)]
        rendered = [
            chatml.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) for turns in kept
        ]
        assert context in rendered[1:-1]
        dropped_less = rendered[rendered.index(context) - 1]
        response = dataset[0].cells[0].response
        assert len(chatml(dropped_less)["input_ids"]) + len(response) > full - 10
        assert dataset.summary.truncated_prompts == 1
        assert dataset.summary.truncated_responses == 0

    @pytest.mark.parametrize("score", ["last", "all_assistant"])
    def test_oldest_turns_go_first_whatever_is_scored(self, chatml: Tokenizer, score: Any) -> None:
        turns = [m for n in range(6) for m in (user(f"question {n}"), assistant(f"answer {n}"))]
        example, writing = pair([*turns, user("last question")], "yes", "no"), Writing(score=score)
        whole = run(chatml, example, writing=writing)[0].cells
        length = max(len(cell.context) + len(cell.response) for cell in whole)
        dataset = run(chatml, example, writing=writing, max_length=length - 10)
        kept = chatml.apply_chat_template([*turns[2:], user("last question")], tokenize=False)
        for cell, said in zip(dataset[0].cells, ("yes", "no"), strict=True):
            text = chatml.decode(np.concatenate([cell.context, cell.response]))
            assert text == f"{kept}<|im_start|>assistant\n{said}<|im_end|>"
        lost = length - max(len(cell.context) + len(cell.response) for cell in dataset[0].cells)
        assert dataset[0].notes == (
            f"the prompt was cut: it lost {lost} tokens to fit max_length = {length - 10}",
        )

    def test_then_the_oldest_tokens_go_and_bos_stays(self, base: Tokenizer) -> None:
        words = "What is the capital of France? " * 20
        with pytest.raises(PreferoError, match=r"prompt alone has max_length = 30.*keep_recent_prompt"):
            run(base, pair(words, "Paris", "It"), max_length=30)
        dataset = run(base, pair(words, "Paris", "It"), max_length=30, too_long="keep_recent_prompt")
        for cell in dataset[0].cells:
            assert cell.context[0] == base.bos_token_id
            assert words.rstrip().endswith(base.decode(cell.context[1:]))
        assert max(len(c.context) + len(c.response) for c in dataset[0].cells) == 30

    def test_a_response_that_is_too_long_loses_its_end_and_not_its_question(self, base: Tokenizer) -> None:
        dataset = run(base, pair("prompt", "a fox jumps " * 40, "It"), max_length=16)
        assert [base.decode(cell.context) for cell in dataset[0].cells] == ["<s>prompt"] * 2
        assert max(len(cell.context) + len(cell.response) for cell in dataset[0].cells) == 16
        assert "ends of responses were cut" in dataset[0].notes[0]
        assert (dataset.summary.truncated_prompts, dataset.summary.truncated_responses) == (0, 1)

    def test_too_long_examples_can_be_left_out_or_refused(self, base: Tokenizer) -> None:
        short, long = pair("prompt", "a", "b"), pair("prompt", "a fox jumps " * 40, "It")
        dataset = run(base, short, long, max_length=16, too_long="drop")
        assert len(dataset) == len(dataset.source) == 1
        assert dataset.summary.dropped == {"examples of more than max_length = 16 tokens": 1}
        with pytest.raises(PreferoError, match=r"row 1: prompt and response have .* max_length is 16"):
            run(base, short, long, max_length=16, too_long="error")

    def test_the_newest_tokens_of_a_prompt_can_be_kept(self, base: Tokenizer) -> None:
        example = pair("prompt", "a fox jumps " * 40, "It")
        dataset = run(base, example, max_length=16, too_long="keep_recent_prompt")
        chosen, rejected = dataset[0].cells
        assert len(chosen.response) == 15
        assert chosen.response[-1] != base.eos_token_id
        assert rejected.response[-1] == base.eos_token_id
        assert len(chosen.context) == 1
        assert chosen.context is rejected.context
        summary = dataset.summary
        assert (summary.truncated_prompts, summary.truncated_responses) == (1, 1)
        assert [note.split(": ")[1] for note in summary.notes] == [
            "1, first rows, row 1. Raise max_length to keep them whole.",
            "1, first rows, row 1. Raise max_length, or choose too_long.",
        ]

    @pytest.mark.parametrize("roles", [("developer",), ("system", "developer"), ("developer", "system")])
    def test_all_instructions_stay(self, roles: tuple[str, ...]) -> None:
        instructions = tuple({"role": role, "content": "Be kind."} for role in roles)
        later = {"role": "developer", "content": "Be brief."}
        turns = (user("a"), later, assistant("b"), user("c"))
        assert shorter_prompts((*instructions, *turns)) == [(*instructions, turns[-1])]

    def test_shorter_prompts_begin_with_the_user(self) -> None:
        assert shorter_prompts(tuple(CHAT)) == [(CHAT[0], CHAT[3])]
        assert shorter_prompts((user("a"), assistant("b"), user("c"), assistant("d"))) == [
            (user("c"), assistant("d"))
        ]
        assert shorter_prompts("text") == shorter_prompts((user("a"),)) == []


class TestColumnsAndViews:
    def test_columns_follow_their_axes(self, base: Tokenizer) -> None:
        row = {"prompt": "p", "chosen": "a", "rejected": "b", "scores": [2, 1], "group": 3}
        row = {**row, "prompt_embedding": [1, 2, 3]}
        columns = {"score", "label", "rank", "group", "prompt_embedding", "pair_noise", "noise"}
        found = tokenize(load_examples([row]), base, roles=PAIR, columns=columns)[0].columns
        assert set(found) == columns - {"pair_noise", "noise"}
        np.testing.assert_array_equal(found["score"], [2.0, 1.0])
        assert found["score"].dtype == np.float64
        np.testing.assert_array_equal(found["rank"], [0, 1])
        assert found["rank"].dtype == np.int64
        assert found["group"] == 3
        np.testing.assert_array_equal(found["prompt_embedding"], [1, 2, 3])

    def test_mismatched_responses_come_from_another_example(self, base: Tokenizer) -> None:
        examples = [pair(f"prompt {n}", f"good {n}", f"bad {n}") for n in range(12)]
        first, again, other = (
            run(base, *examples, roles=(), views={"mismatched": ()}, seed=seed) for seed in (0, 0, 1)
        )
        own = [decoded(base, first, n) for n in range(12)]
        lent = []
        for n, example in enumerate(first):
            cells = example.views["mismatched"]
            assert [cell.context is own.context for cell, own in zip(cells, example.cells, strict=True)]
            lent.append(base.decode(cells[0].response))
            assert lent[-1] != own[n][0][1]
            for cell, same in zip(cells, again[n].views["mismatched"], strict=True):
                np.testing.assert_array_equal(cell.response, same.response)
        assert sorted(lent) == sorted(responses[0][1] for responses in own)
        assert lent != [base.decode(example.views["mismatched"][0].response) for example in other]

    def test_mismatched_lists_and_lengths(self, base: Tokenizer) -> None:
        rows = [
            {"prompt": "a long prompt " * 4, "responses": ["x", "y", "z"], "scores": [1, 2, 3]},
            {"prompt": "p", "responses": ["one fox jumps over the dog " * 2, "two"], "scores": [1, 2]},
        ]
        dataset = tokenize(load_examples(rows), base, roles=(), max_length=60, views={"mismatched": ()})
        for example in dataset:
            cells = example.views["mismatched"]
            assert len(cells) == len(example.cells)
            assert all(1 <= len(cell.response) <= 60 - len(cell.context) for cell in cells)

    def test_mismatched_needs_another_example(self, base: Tokenizer) -> None:
        with pytest.raises(PreferoError, match="two examples or more"):
            run(base, pair("p", "a", "b"), views={"mismatched": ()})
        with pytest.raises(PreferoError, match="unknown view 'mismatch'; did you mean 'mismatched'"):
            run(base, pair("p", "a", "b"), views={"mismatch": ()})

    @given(count=st.integers(2, 50), seed=st.integers(0, 100))
    def test_one_cycle_visits_all(self, count: int, seed: int) -> None:
        successor = one_cycle(count, seed)
        at, seen = 0, []
        for _ in range(count):
            seen.append(at)
            at = int(successor[at])
        assert sorted(seen) == list(range(count))
        assert at == 0


class TestSummary:
    def test_counts_by_hand(self, base: Tokenizer) -> None:
        examples = load_examples(
            [
                {"prompt": "p", "chosen": "abcabc", "rejected": "b"},
                {"prompt": "p", "chosen": "x", "rejected": "y"},
                {"prompt": "p", "chosen": "x", "rejected": "x"},
            ],
            skip_bad_rows=True,
        )
        summary = tokenize(examples, base, roles=PAIR).summary
        assert (summary.examples, summary.responses, summary.skipped) == (2, 4, 1)
        chosen = len(base.tokenize("abcabc"))
        assert summary.lengths["prompt"]["max"] == 2
        assert summary.lengths["chosen"]["max"] == chosen + 1
        assert summary.notes[0].startswith(
            "rows that could not be read left out: 1, first rows, row 3, field 'rejected'"
        )
        assert summary.longer_chosen == 0.75
        assert summary.tokens_padded == 4 * 2 + (chosen + 1) + 3 * 2
        assert summary.tokens_unique == summary.tokens_padded - 2 * 2
        assert summary.sharing == pytest.approx(summary.tokens_padded / summary.tokens_unique)

    def test_it_is_json(self, base: Tokenizer) -> None:
        import json

        summary = run(base, pair("p", "a", "b"), pair(CHAT, "a", "b")).summary
        again = json.loads(json.dumps(summary.as_dict()))
        assert again == summary.as_dict()
        edges = again["histogram"]["edges"]
        assert sum(again["histogram"]["chosen"]) == 2
        assert len(edges) == len(again["histogram"]["chosen"]) + 1

    @given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=6), st.text("ab", max_size=4))
    def test_unique_tokens_are_the_nodes_of_the_tree(
        self, base: Tokenizer, responses: list[str], prompt: str
    ) -> None:
        example = Example(prompt, tuple(Response(response) for response in responses))
        cells = run(base, example, roles=())[0].cells
        assert unique_tokens(cells) == len(TokenTrie.build(cells))

    def test_ties_and_skipped_rows_are_counted(self, base: Tokenizer) -> None:
        votes = {"instruction": "i", "response1": "a", "response2": "b"}
        rows = [{**votes, "annotator1": vote} for vote in (0, 1, 2)]
        summary = tokenize(load_examples(rows), base, roles=PAIR).summary
        assert summary.dropped == {"ties": 1}
        assert summary.notes[0] == "ties left out: 1."


def test_tokenizers_without_special_tokens_say_what_is_missing(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(
        PreferoError, match=r"end token, and the tokenizer has none\. Set tokenizer\.eos_token"
    ):
        run(tokenizer, pair("p", "a", "b"))
    with pytest.raises(PreferoError, match="'prompt': the prompt is empty, and the tokenizer has neither"):
        run(tokenizer, pair("", "a", "b"))


def test_no_pad_token_is_needed(base: Tokenizer) -> None:
    assert base.pad_token is None
    assert len(run(base, pair("p", "a", "b"))) == 1


def test_max_length_has_to_leave_something(base: Tokenizer) -> None:
    with pytest.raises(PreferoError, match="max_length is 1; expected at least 2"):
        run(base, pair("p", "a", "b"), max_length=1)


def test_a_dataset_is_a_sequence(base: Tokenizer) -> None:
    dataset = run(base, pair("p", "a", "b"), pair("q", "a", "b"))
    assert [example.index for example in dataset] == [0, 1]
    assert dataset[-1] is dataset[1]
    assert dataset[:1] == (dataset[0],)
    assert dataset.roles == PAIR
