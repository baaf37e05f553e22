"""Phrases of the callers of a hotel with a restaurant, and of its agent.

A topic has the same exchanges in every language, so that the English ones are the translations.
"""

from __future__ import annotations

from typing import NamedTuple

Exchange = tuple[str, str]


class Phrasebook(NamedTuple):
    """Phrases of one language; `topics` maps a topic to its exchanges in order."""

    code: str
    greeting: str
    silence: str
    misheard: Exchange
    goodbye: Exchange
    transfer: str
    topics: dict[str, tuple[Exchange, ...]]


class Topic(NamedTuple):
    """Topic of the agent: its function, its labels and the template of its summary."""

    name: str
    function: str
    retrieved: tuple[str, ...]
    intent: str
    heading: str
    summary: str


TOPICS = (
    Topic(
        "book_table",
        "create_booking",
        ("restaurant_booking", "opening_hours"),
        "BOOK_TABLE",
        "Table reservation",
        "The caller booked a table for {guests} on {date} at {time} under the name {name}.",
    ),
    Topic(
        "change_booking",
        "update_booking",
        ("change_booking", "cancellation_policy"),
        "CHANGE_BOOKING",
        "Change of a reservation",
        "The caller {name} moved an existing reservation to {date} at {time}.",
    ),
    Topic(
        "cancel_booking",
        "cancel_booking",
        ("cancellation_policy",),
        "CANCEL_BOOKING",
        "Cancellation",
        "The caller {name} cancelled the reservation on {date}; no fee was due.",
    ),
    Topic(
        "room_rates",
        "quote_room",
        ("room_rates", "breakfast", "parking"),
        "ASK_ROOM_RATE",
        "Question about room rates",
        "The caller asked for a room for {guests} on {date} and was quoted a rate with breakfast.",
    ),
    Topic(
        "lost_property",
        "open_ticket",
        ("lost_property",),
        "REPORT_LOST_ITEM",
        "Lost property",
        "The caller {name} left a jacket in the restaurant on {date}; a ticket was opened.",
    ),
    Topic(
        "complaint",
        "transfer_call",
        ("complaints", "billing"),
        "COMPLAIN",
        "Complaint about a bill",
        "The caller {name} disputed a charge of {date} and asked for a person.",
    ),
)

ENGLISH = Phrasebook(
    "en",
    "Thank you for calling the Harbour Hotel. This call may be recorded. How may I help you?",
    "Sorry, I didn't hear anything. Are you still there?",
    (
        "the, uh, thing with the other one",
        "I'm sorry, I didn't quite get that. Could you say it again?",
    ),
    ("No, that's all. Bye.", "Thank you for calling the Harbour Hotel. Goodbye!"),
    "I'll need to put you through to someone who can help. One moment, please.",
    {
        "book_table": (
            (
                "I'd like to book a table for {guests} on {date}.",
                "With pleasure. What time would suit you?",
            ),
            (
                "At {time}, if that's possible.",
                "{time} is free. May I have a name for the booking?",
            ),
            (
                "{name}.",
                "Thank you, {name}. A table for {guests} on {date} at {time}. Anything else?",
            ),
        ),
        "change_booking": (
            (
                "I have a reservation and need to move it.",
                "Of course. Under which name did you book?",
            ),
            ("It's under {name}.", "I found it. To which date would you like to move it?"),
            (
                "To {date} at {time}, please.",
                "Done: you are expected on {date} at {time}. Anything else?",
            ),
        ),
        "cancel_booking": (
            (
                "I have to cancel my booking on {date}.",
                "I'm sorry to hear that. What is your name?",
            ),
            ("My name is {name}.", "Thank you. Shall I really cancel {date} for {guests} people?"),
            (
                "Yes, please.",
                "It is cancelled, and there is no fee. Can I do anything else for you?",
            ),
        ),
        "room_rates": (
            ("How much is a room for {guests} people on {date}?", "For one night or for several?"),
            ("One night. Is breakfast included?", "It is: the room is 128 euros with breakfast."),
            (
                "And can I park there?",
                "The garage costs 15 euros a night. Anything else I can help with?",
            ),
        ),
        "lost_property": (
            ("I left my jacket in the restaurant on {date}.", "I'm sorry! What does it look like?"),
            ("It's dark blue, with my keys in it.", "Thank you. Under which name was your table?"),
            (
                "{name}, at {time}.",
                "I opened a ticket; our staff will call you today. Anything else?",
            ),
        ),
        "complaint": (
            (
                "There is a charge on my bill that I don't recognise.",
                "Let me see. What is your name?",
            ),
            (
                "{name}. It was on {date}.",
                "I see a minibar charge on {date}. Did you take anything?",
            ),
            ("No! I want to speak to a person.", "I understand. I will find someone for you."),
        ),
    },
)

SPANISH = Phrasebook(
    "es",
    "Gracias por llamar al Hotel del Puerto. La llamada puede ser grabada. ¿En qué puedo ayudarle?",
    "Perdone, no he oído nada. ¿Sigue ahí?",
    ("eso de la otra vez, lo del…", "Lo siento, no le he entendido bien. ¿Puede repetirlo?"),
    ("No, eso es todo. Adiós.", "Gracias por llamar al Hotel del Puerto. ¡Hasta pronto!"),
    "Le paso con un compañero que podrá ayudarle. Un momento, por favor.",
    {
        "book_table": (
            (
                "Quisiera reservar una mesa para {guests} el {date}.",
                "Con mucho gusto. ¿A qué hora?",
            ),
            ("A las {time}, si puede ser.", "A las {time} hay sitio. ¿A qué nombre la pongo?"),
            ("{name}.", "Gracias, {name}. Mesa para {guests} el {date} a las {time}. ¿Algo más?"),
        ),
        "change_booking": (
            ("Tengo una reserva y necesito cambiarla.", "Por supuesto. ¿A nombre de quién está?"),
            ("A nombre de {name}.", "La he encontrado. ¿Para qué día la quiere?"),
            (
                "Para el {date} a las {time}.",
                "Hecho: les esperamos el {date} a las {time}. ¿Algo más?",
            ),
        ),
        "cancel_booking": (
            ("Tengo que cancelar mi reserva del {date}.", "Lo lamento. ¿Cómo se llama usted?"),
            ("Me llamo {name}.", "Gracias. ¿Cancelo entonces el {date} para {guests} personas?"),
            ("Sí, por favor.", "Queda cancelada y sin gastos. ¿Puedo ayudarle en algo más?"),
        ),
        "room_rates": (
            ("¿Cuánto cuesta una habitación para {guests} el {date}?", "¿Una noche o varias?"),
            ("Una noche. ¿El desayuno está incluido?", "Sí: son 128 euros con desayuno."),
            ("¿Y se puede aparcar?", "El garaje cuesta 15 euros por noche. ¿Algo más?"),
        ),
        "lost_property": (
            ("El {date} me dejé la chaqueta en el restaurante.", "¡Vaya! ¿Cómo es la chaqueta?"),
            ("Azul oscuro, con mis llaves dentro.", "Gracias. ¿A nombre de quién estaba la mesa?"),
            ("{name}, a las {time}.", "He abierto un aviso; le llamarán hoy mismo. ¿Algo más?"),
        ),
        "complaint": (
            ("Hay un cargo en mi factura que no reconozco.", "Déjeme ver. ¿Cómo se llama usted?"),
            ("{name}. Fue el {date}.", "Veo un cargo del minibar el {date}. ¿Tomó usted algo?"),
            ("¡No! Quiero hablar con una persona.", "Le entiendo. Voy a buscar a alguien."),
        ),
    },
)

GERMAN = Phrasebook(
    "de",
    "Vielen Dank für Ihren Anruf im Hafenhotel. Dieses Gespräch kann aufgezeichnet werden. "
    "Wie kann ich Ihnen helfen?",
    "Entschuldigung, ich habe nichts gehört. Sind Sie noch da?",
    (
        "ja das mit dem äh anderen da",
        "Das habe ich leider nicht verstanden. Sagen Sie es bitte noch einmal?",
    ),
    ("Nein, das war alles. Tschüss.", "Danke für Ihren Anruf im Hafenhotel. Auf Wiederhören!"),
    "Ich verbinde Sie mit jemandem, der Ihnen helfen kann. Einen Moment bitte.",
    {
        "book_table": (
            (
                "Ich möchte am {date} einen Tisch für {guests} reservieren.",
                "Gern. Um wie viel Uhr?",
            ),
            ("Um {time} Uhr, wenn das geht.", "{time} Uhr ist frei. Auf welchen Namen bitte?"),
            (
                "{name}.",
                "Danke, {name}. Ein Tisch für {guests} am {date} um {time} Uhr. Sonst noch etwas?",
            ),
        ),
        "change_booking": (
            ("Ich habe reserviert und muss das verschieben.", "Natürlich. Auf welchen Namen?"),
            ("Auf {name}.", "Ich habe Ihre Reservierung. Auf welchen Tag soll ich sie legen?"),
            (
                "Auf den {date} um {time} Uhr.",
                "Erledigt: am {date} um {time} Uhr. Sonst noch etwas?",
            ),
        ),
        "cancel_booking": (
            ("Ich muss meine Reservierung am {date} absagen.", "Das ist schade. Wie ist Ihr Name?"),
            (
                "Mein Name ist {name}.",
                "Danke. Soll ich den {date} für {guests} Personen streichen?",
            ),
            ("Ja, bitte.", "Sie ist storniert, ohne Gebühr. Kann ich sonst noch etwas tun?"),
        ),
        "room_rates": (
            ("Was kostet am {date} ein Zimmer für {guests}?", "Für eine Nacht oder für mehrere?"),
            ("Eine Nacht. Ist das Frühstück dabei?", "Ja: 128 Euro mit Frühstück."),
            ("Und kann ich dort parken?", "Die Garage kostet 15 Euro je Nacht. Sonst noch etwas?"),
        ),
        "lost_property": (
            ("Ich habe am {date} meine Jacke im Restaurant vergessen.", "Oje! Wie sieht sie aus?"),
            ("Dunkelblau, mit meinen Schlüsseln darin.", "Danke. Auf welchen Namen war der Tisch?"),
            (
                "{name}, um {time} Uhr.",
                "Ich habe es notiert; man ruft Sie heute an. Sonst noch etwas?",
            ),
        ),
        "complaint": (
            (
                "Auf meiner Rechnung steht etwas, das ich nicht kenne.",
                "Ich sehe nach. Ihr Name bitte?",
            ),
            (
                "{name}. Es war am {date}.",
                "Da steht die Minibar am {date}. Haben Sie etwas genommen?",
            ),
            (
                "Nein! Ich will mit einem Menschen sprechen.",
                "Das verstehe ich. Ich suche jemanden.",
            ),
        ),
    },
)

ARABIC = Phrasebook(
    "ar",
    "شكراً لاتصالكم بفندق الميناء. قد يتم تسجيل هذه المكالمة. كيف يمكنني مساعدتكم؟",
    "عذراً، لم أسمع شيئاً. هل ما زلتم معي؟",
    ("ذاك الشيء الآخر يعني", "عذراً، لم أفهم ذلك. هل يمكنكم الإعادة؟"),
    ("لا، هذا كل شيء. مع السلامة.", "شكراً لاتصالكم بفندق الميناء. مع السلامة!"),
    "سأحوّلكم إلى زميل يستطيع المساعدة. لحظة من فضلكم.",
    {
        "book_table": (
            ("أريد حجز طاولة لـ {guests} أشخاص يوم {date}.", "بكل سرور. في أي ساعة؟"),
            ("الساعة {time} إن أمكن.", "الساعة {time} متاحة. ما الاسم من فضلكم؟"),
            ("{name}.", "شكراً {name}. طاولة لـ {guests} يوم {date} الساعة {time}. هل من شيء آخر؟"),
        ),
        "change_booking": (
            ("لدي حجز وأحتاج إلى تغييره.", "بالطبع. باسم من الحجز؟"),
            ("باسم {name}.", "وجدته. إلى أي يوم تريدون نقله؟"),
            ("إلى {date} الساعة {time}.", "تم: ننتظركم يوم {date} الساعة {time}. هل من شيء آخر؟"),
        ),
        "cancel_booking": (
            ("يجب أن ألغي حجزي يوم {date}.", "يؤسفني ذلك. ما اسمكم من فضلكم؟"),
            ("اسمي {name}.", "شكراً. هل ألغي حجز يوم {date} لـ {guests} أشخاص؟"),
            ("نعم من فضلك.", "تم الإلغاء دون رسوم. هل من شيء آخر؟"),
        ),
        "room_rates": (
            ("كم سعر غرفة لـ {guests} أشخاص يوم {date}؟", "لليلة واحدة أم لعدة ليال؟"),
            ("ليلة واحدة. هل الفطور مشمول؟", "نعم: ١٢٨ يورو مع الفطور."),
            ("وهل يوجد موقف سيارات؟", "الموقف بـ ١٥ يورو لليلة. هل من شيء آخر؟"),
        ),
        "lost_property": (
            ("نسيت سترتي في المطعم يوم {date}.", "يؤسفني ذلك! كيف شكلها؟"),
            ("زرقاء داكنة وفيها مفاتيحي.", "شكراً. باسم من كانت الطاولة؟"),
            ("{name}، الساعة {time}.", "سجلت بلاغاً وسنتصل بكم اليوم. هل من شيء آخر؟"),
        ),
        "complaint": (
            ("في فاتورتي مبلغ لا أعرفه.", "دعوني أرى. ما اسمكم من فضلكم؟"),
            ("{name}. كان ذلك يوم {date}.", "أرى مبلغاً للميني بار يوم {date}. هل أخذتم شيئاً؟"),
            ("لا! أريد التحدث إلى شخص.", "أفهمكم. سأجد لكم شخصاً."),
        ),
    },
)

PHRASEBOOKS = {book.code: book for book in (ENGLISH, SPANISH, GERMAN, ARABIC)}
NAMES = {
    "en": ("Emma Clarke", "Oliver Hughes", "Amelia O'Brien", "Jack Patel"),
    "es": ("Lucía Fernández", "Mateo García", "Sofía Núñez", "Diego Ibáñez"),
    "de": ("Anna Müller", "Jürgen Weiß", "Käthe Schröder", "Lukas Groß"),
    "ar": ("ليلى حداد", "عمر الخطيب", "نور المصري", "يوسف بن علي"),
}
LANGUAGES = ("en-US", "en-GB", "en-US", "en-GB", "en-US", "es-ES", "es-MX", "de-DE", "ar-SA")
NOTES = (
    "Called back, all settled.",
    "Gast wünscht Rückruf am Vormittag.",
    "VIP guest, please look at the minibar charge.",
    "La huésped pidió la factura por correo 📧",
)
TAGS = ("vip", "follow-up", "refund", "groups & events", "Überbuchung", "2026", "مهم")
FEEDBACK = ("Very quick, thanks!", "Had to repeat myself twice.", "Todo perfecto 👍", "ممتاز")
BAD_RESPONSE_REASONS = ("Too long", "Off topic", "Wrong tone", "Incomplete", "Repetitive")
HANDOFF_REASONS = ("CALLER_ASKED_FOR_HUMAN", "BILLING_DISPUTE", "API_FAILED", "FULLY_BOOKED")
DESTINATIONS = ("Front desk", "Billing office", "Restaurant manager")
VARIANTS = ("Harbour Hotel London", "Hotel del Puerto Valencia", "Hafenhotel Hamburg")
HOTELS = ("London", "Valencia", "Hamburg")
"""Values of the attribute `hotel` of the variants, in their order."""
AGENT_NAMES = ("Harbour Hotels bookings", "Harbour Hotels spa", "Harbour Hotels events")
DEPLOYMENT_MESSAGES = (
    "Opening hours of the winter season",
    "Ask for the name before the date",
    "Nuevo saludo en español",
    "",
    "Hand over billing disputes at once",
)
DEPLOYERS = ("emma@example.com", "jürgen@example.com")
