"""The mark that says "made by a model", in the vocabulary that picture tools and the EU AI Act's readers know: IPTC."""

from xml.sax.saxutils import escape

XMP_KEY = "XML:com.adobe.xmp"
"""The name of the PNG chunk that holds an XMP packet."""

TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

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


def xmp_packet(creator_tool: str) -> str:
    """The XMP packet of a picture that a model drew from words alone."""
    return _PACKET.format(creator_tool=escape(creator_tool), source_type=TRAINED_ALGORITHMIC_MEDIA)
