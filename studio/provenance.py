"""The mark that says "made by a model", in the vocabulary that picture tools and the EU AI Act's readers know: IPTC."""

import re
from xml.sax.saxutils import escape, unescape

XMP_KEY = "XML:com.adobe.xmp"
"""The name of the PNG chunk that holds an XMP packet."""

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

COMPOSITE_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

_BY_MODELS = frozenset(("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"))

_TOLD = re.compile(r"DigitalSourceType(?:>\s*|\s*=\s*[\"']|\s+rdf:resource\s*=\s*[\"'])([^<\"'\s]{1,300})")
"""As an element, an attribute, or an element that points to it. No parser: a packet comes from anybody."""

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <xmp:CreatorTool>{creator_tool}</xmp:CreatorTool>
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def xmp_packet(creator_tool: str, *, is_composite: bool = False) -> str:
    """The XMP packet of a picture that a model drew, from words alone or (`is_composite`) over another picture."""
    return _PACKET.format(creator_tool=escape(creator_tool), source_type=source_type(is_composite))


def source_type(is_composite: bool) -> str:
    """IPTC's term for a picture that a model drew, from words alone or over another picture."""
    return COMPOSITE_MEDIA if is_composite else TRAINED_ALGORITHMIC_MEDIA


def source_type_in(packet: str) -> str:
    """The digital source type that an XMP packet of any program tells; "" where it tells none."""
    found = _TOLD.search(packet)
    return unescape(found[1]) if found else ""


def says_model(source_type: str) -> bool:
    """Whether a digital source type means that a model made the picture, or a part of it."""
    return source_type.rpartition("/")[2] in _BY_MODELS
