"""The vectors of our reference on Meta's match keys: raw value, normal form, digest.

Digests of John_Smith, (650)555-1212, Mary, 정, Valéry, 2/16/1997 and us are printed in
Meta's "Customer information parameters"; the others follow from the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from meta_capi.match_keys import Context
from meta_capi.normalise import Flaw

TODAY = date(2026, 11, 20)


@dataclass(frozen=True, slots=True)
class Vector:
    """One line of the reference."""

    key: str
    value: str
    normal_form: str | Flaw | None
    sha256: str = ""
    country: str | None = None
    format: str | None = None

    @property
    def context(self) -> Context:
        return Context(today=TODAY, country=self.country, birthday_format=self.format)


VECTORS = (
    Vector("em", "John_Smith@gmail.com", "john_smith@gmail.com",
           "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"),
    Vector("em", "  JANE.DOE@Example.COM ", "jane.doe@example.com",
           "86e0b9e56c17cc4d12387e1949b85053fbe73bc3ce5a1188713a9d300cc6133d"),
    Vector("em", "Test@Example.com", "test@example.com",
           "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"),
    Vector("em", "first.last+tag@sub.example.co.uk", "first.last+tag@sub.example.co.uk",
           "35d77d507398c5b8b7b65bd672f5704c1ac8a7275c423f11f4fb7f3fc7c0a71d"),
    Vector("em", "jane doe@example.com", Flaw.EM_NOT_AN_ADDRESS),
    Vector("em", "jane@localhost", Flaw.EM_NOT_AN_ADDRESS),
    Vector("em", "   ", None),
    Vector("ph", "(650)555-1212", "16505551212",
           "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
           country="us"),
    Vector("ph", "+1 (650) 555-1212", "16505551212",
           "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"),
    Vector("ph", "0041 79 123 45 67", "41791234567",
           "641b2674c7b3d41f0c5167c163c845f3d899639ebc622d0d3b4632abeb14e6b0"),
    Vector("ph", "079 123 45 67", "41791234567",
           "641b2674c7b3d41f0c5167c163c845f3d899639ebc622d0d3b4632abeb14e6b0",
           country="ch"),
    Vector("ph", "+44 20 7946 0958", "442079460958",
           "35e206e5dec4c89b9e8b71b8c32724a5bb518483ac5a20c6617d738375b3b823"),
    Vector("ph", "12345678901", "12345678901",
           "254aa248acb47dd654ca3ea53f48c2c26d641d23d7e2e93a1ec56258df7674c4"),
    Vector("ph", "079 123 45 67", Flaw.PH_NO_COUNTRY_CODE),
    Vector("ph", "abc", Flaw.PH_NOT_A_NUMBER),
    Vector("fn", "Mary", "mary",
           "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"),
    Vector("fn", "정", "정",
           "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14"),
    Vector("fn", "Valéry", "valéry",
           "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"),
    Vector("fn", "Vale\u0301ry", "valéry",
           "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"),
    Vector("fn", "  Mary-Jane ", "maryjane",
           "f08f448a5e7a9dc3619bb7c129f6a7d5fc6af002cea17ad71dfdc1c68f4d4e0e"),
    Vector("fn", "J. R.", "jr",
           "f04a21f9e1c244d59df2255328fb2684c83f51c09e3c53108ed766681b5f4c84"),
    Vector("fn", "   ", None),
    Vector("ln", "O'Brien", "obrien",
           "b4cb6cb33fe4b865868de825023a1e2790dc12ac01ecc8d7c5afe8254071c8ba"),
    Vector("ln", "van der Berg", "vanderberg",
           "aad607ca3121d5d843c2cd64e8c73c2a24fa3a4cb890ed8d40a1efa8af7a14d5"),
    Vector("ln", "MÜLLER", "müller",
           "2dbd218072117713f2d5996a726a9b216ed791ffd0783b6ba4ab6d61b8333192"),
    Vector("ln", "Smith", "smith",
           "6627835f988e2c5e50533d491163072d3f4f41f5c8b04630150debb3722ca2dd"),
    Vector("db", "2/16/1997", "19970216",
           "01acdbf6ec7b4f478a225f1a246e5d6767eeab1a7ffa17f025265b5b94f40f0c",
           format="%m/%d/%Y"),
    Vector("db", "1997-02-16", "19970216",
           "01acdbf6ec7b4f478a225f1a246e5d6767eeab1a7ffa17f025265b5b94f40f0c"),
    Vector("db", "16.02.1997", "19970216",
           "01acdbf6ec7b4f478a225f1a246e5d6767eeab1a7ffa17f025265b5b94f40f0c",
           format="%d.%m.%Y"),
    Vector("db", "19850703", "19850703",
           "a401fde5ff69e411832648168ef5637dfb4a8b6f04c20c77e0d61ec97cde86dd"),
    Vector("db", "1997-02-31", Flaw.DB_UNREADABLE),
    Vector("db", "18991231", Flaw.DB_OUT_OF_RANGE),
    Vector("ge", "F", "f",
           "252f10c83610ebca1a059c0bae8255eba2f95be4d1d7bcfa89d7248a82d9f111"),
    Vector("ge", "Male", "m",
           "62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a"),
    Vector("ge", "female", "f",
           "252f10c83610ebca1a059c0bae8255eba2f95be4d1d7bcfa89d7248a82d9f111"),
    Vector("ge", "x", Flaw.GE_UNKNOWN),
    Vector("ct", "New York", "newyork",
           "350c754ba4d38897693aa077ef43072a859d23f613443133fecbbd90a3512ca5"),
    Vector("ct", "Paris", "paris",
           "1670f2e42fefa5044d59a65349e47c566009488fc57d7b4376dd5787b59e3c57"),
    Vector("ct", "London", "london",
           "6089854c94ca5454b76be6752c562901a985f64c9a946f62976aeab593b83161"),
    Vector("ct", "St. Louis", "stlouis",
           "8ba24bdf99947996f3000259be455de791b06fcc0e802ce05031030df1ee8ea3"),
    Vector("ct", "L'Aquila", "laquila",
           "6b47947459d80bfbc871802f252f8b5a0b5062eed3cb13ba6596b95e161feca1"),
    Vector("ct", "Zürich", "zürich",
           "201f10d5d64518d86d2d3a47d28675d1c788762c5345df643dadec71d4e0a91e"),
    Vector("st", "AZ", "az",
           "9c0ada37bf74aeefae949fdfc90db0cf6eaf90192eff67d65887771f0585e055"),
    Vector("st", "California", "ca",
           "6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126"),
    Vector("st", "D.C.", "dc",
           "abecdf3503635c0be9eca61cddf5b25c7f8380d5aae7d73d0f62e9a38c87b70d"),
    Vector("st", "Ontario", "on",
           "b8d31e852725afb1e26d53bab6095b2bff1749c9275be13ed1c05a56ed31ec09",
           country="ca"),
    Vector("st", "New South Wales", "newsouthwales",
           "96236847af45f93f09c6ba2627cdb8da07e395f009d0e42f782cffb119cc24da",
           country="au"),
    Vector("zp", "94035", "94035",
           "1794327a4d443904421f5ca1f3d72d0a62ba2f0770d80755ec2220fc0efb052e"),
    Vector("zp", "94035-1234", "94035",
           "1794327a4d443904421f5ca1f3d72d0a62ba2f0770d80755ec2220fc0efb052e"),
    Vector("zp", "940351234", "94035",
           "1794327a4d443904421f5ca1f3d72d0a62ba2f0770d80755ec2220fc0efb052e",
           country="us"),
    Vector("zp", "M1 1AE", "m11ae",
           "1dc694c2070e697769fb959b50671d76cafd430d8ca191fbdd0affcaea344ac5"),
    Vector("zp", "75018", "75018",
           "8dc3075ea745609c169d1c120d3fcd1c42673d16f18b423f4374e894d34a098a"),
    Vector("zp", "1987", "1987",
           "744b93f9950fc38dad705556931ea48193b99dcb191cc9bd77097f65fbe2f0b8"),
    Vector("country", "United States", "us",
           "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"),
    Vector("country", "US", "us",
           "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"),
    Vector("country", "GB", "gb",
           "0b407281768f0e833afef47ed464b6571d01ca4d53c12ce5c51d1462f4ad6677"),
    Vector("country", "fr", "fr",
           "67ad8f41a7bb0a18c45f3efd8f6a32bdcd832bcf8f3f2eb44006c03d53076e18"),
    Vector("country", "Narnia", Flaw.COUNTRY_UNKNOWN),
    Vector("external_id", "User 42", "user42",
           "fb44d98b9d56bbe49028eacc8574f5715178e6d3470d276a1697de3df68e7579"),
    Vector("external_id", "  ABC ", "abc",
           "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    Vector("external_id", "user-42", "user-42",
           "6d894aa3ee802549d7f340e7c1cf0d1c1cb14cd84f768d92ffaa6785337c4997"),
    Vector("external_id", "12345", "12345",
           "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"),
)  # fmt: skip
