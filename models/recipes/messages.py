"""Messages to the support of a shop, labelled by what is wanted, each in several wordings.

Wordings are either learned from or asked about, never both; so are the things that they speak of.
"""

from __future__ import annotations

from random import Random
from typing import Literal

# Of each label the wordings to learn from, and those to be asked about.
_WORDINGS: dict[str, tuple[str, str]] = {
    "refund": (
        """I want my money back for the {item}.
        When will I get the refund for the {item} I returned?
        I sent the {item} back and nobody has paid me yet.
        Please refund the {item}, I do not need it any more.
        The {item} went back to you, where is my money?
        How do I get reimbursed for a {item}?""",
        """I returned the {item} last week and am still waiting for the repayment.
        Can you put the price of the {item} back on my card?
        I would like to hand in the {item} and be paid back.
        It has been a month since I gave the {item} back, but I see no money on my account.
        You promised to pay me back for the {item}, nothing has come.
        The {item} is on its way back, how long until I am refunded?""",
    ),
    "delivery": (
        """Where is my {item}?
        My {item} should have been here on Monday.
        The tracking of the {item} has not moved for a week.
        When will the {item} arrive?
        The courier never came with the {item}.
        My parcel with the {item} seems to be lost.""",
        """I am still waiting for the {item} that I ordered.
        Has the {item} been shipped yet?
        It says the {item} was handed over, but nothing is at my door.
        How many more days until the {item} is here?
        Nobody knows where the van with my {item} is.
        Could you tell me on which day the {item} gets to me?""",
    ),
    "login": (
        """I forgot my password.
        My account is locked after three attempts.
        I cannot sign in to look at the order of my {item}.
        The link to reset my password does not work.
        Your site says that my e-mail address is unknown.
        The code for signing in never reaches me.""",
        """I am shut out of my account.
        It keeps telling me that my credentials are wrong when I want to see my {item}.
        How can I choose a new password?
        I no longer get into my profile since I changed my phone.
        The login page throws me out again and again.
        My password is refused, and my orders of the {item} are behind it.""",
    ),
    "cancel": (
        """Please cancel my order of the {item}.
        I changed my mind about the {item}, do not send it.
        I ordered the {item} by mistake, can you stop it?
        I want to end my subscription.
        Do not ship the {item}, I found another one.
        How can I withdraw my order of a {item}?""",
        """Is it too late to call off the {item}?
        I do not want the {item} any longer, please take it out of my order before it leaves.
        Stop my membership at the end of the month.
        I clicked on the {item} twice, please drop one of the two before you pack them.
        Please undo my order, I no longer need a {item}.
        Can the order of the {item} still be cancelled today?""",
    ),
    "billing": (
        """I was charged twice for the {item}.
        The invoice of the {item} has the wrong address.
        My discount was not taken off the price of the {item}.
        You took more money than the {item} costs.
        I need a receipt for the {item}.
        There is a fee on my bill that I do not know.""",
        """My card statement shows two payments for one {item}.
        Why is the sum on the bill higher than the price of the {item}?
        Could you send the invoice of the {item} to my company?
        The voucher for the {item} was ignored at the checkout.
        I paid for the {item} once, but the money was taken two times.
        The tax on the invoice for the {item} looks wrong to me.""",
    ),
    "damaged": (
        """The {item} arrived broken.
        There is a crack in the {item}.
        My {item} stopped working after two days.
        The {item} does not turn on.
        A part of the {item} is missing.
        The {item} came with scratches all over.""",
        """When I opened the box, the {item} was in pieces.
        The {item} is faulty, it makes a strange noise.
        After one evening the {item} just died.
        My new {item} has a big dent.
        The {item} was defective right out of the package.
        One leg of the {item} is bent and it will not stand.""",
    ),
    "question": (
        """Does the {item} come in blue?
        How heavy is the {item}?
        Is the {item} in stock again soon?
        Which size of the {item} do I need?
        Does the {item} work in other countries?
        Is there a warranty for the {item}?""",
        """What is the {item} made of?
        Can children use the {item} too?
        Do you have the {item} in a larger version?
        How long does the battery of the {item} last?
        Would the {item} fit into a small bag?
        Which colours are there for the {item}?""",
    ),
    "praise": (
        """I love the {item}, thank you!
        Great service, the {item} was here the next day.
        The {item} is even better than I thought.
        Thanks for your help with the {item}.
        I am very happy with the {item}.
        Your team is wonderful.""",
        """Just wanted to say that the {item} is fantastic.
        Best {item} I ever had!
        You solved my trouble with the {item} so quickly, well done.
        Five stars for the {item} and for your friendly staff.
        What a lovely {item}, I am delighted!
        Everybody at home adores the {item}, thanks a lot.""",
    ),
}
LABELS = tuple(_WORDINGS)
_ITEMS = (
    ("lamp", "kettle", "backpack", "keyboard", "camera", "drill", "headphones case", "coffee machine", "office chair"),
    ("toaster", "tent", "monitor", "bicycle pump", "electric razor", "blender", "suitcase", "garden hose", "watch"),
)
_OPENINGS = (("", "Hello, ", "Hi there! "), ("", "Good morning. ", "Dear team, "))

Message = tuple[str, str]


def make_messages(known: int, new: int, seed: int) -> tuple[list[Message], list[Message]]:
    """Different messages to learn from, and to be asked about, with their labels: so many of each, where there are."""
    random = Random(seed)
    return _drawn(random, 0, known), _drawn(random, 1, new)


def _drawn(random: Random, side: Literal[0, 1], count: int) -> list[Message]:
    found = []
    for label in LABELS:
        texts = _all(label, side)
        found += [(text, label) for text in random.sample(texts, min(count, len(texts)))]
    return found


def _all(label: str, side: Literal[0, 1]) -> list[str]:
    wordings = [line.strip() for line in _WORDINGS[label][side].splitlines()]
    texts = (
        opening + wording.format(item=item)
        for wording in wordings
        for item in _ITEMS[side]
        for opening in _OPENINGS[side]
    )
    return list(dict.fromkeys(texts))
