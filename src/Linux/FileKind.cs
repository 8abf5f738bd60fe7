namespace Fleet.Linux;

/// <summary>What a name stands for; the file types of &lt;linux/stat.h&gt; (inode(7)).</summary>
public enum FileKind
{
    /// <summary>Nothing has this name.</summary>
    None = 0,
    Fifo = 0x1000,
    CharacterDevice = 0x2000,
    Directory = 0x4000,
    BlockDevice = 0x6000,
    Regular = 0x8000,
    SymbolicLink = 0xA000,
    Socket = 0xC000,
}
